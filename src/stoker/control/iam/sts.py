"""STS: who am I, and sessions of roles and users."""

from collections.abc import Mapping
from typing import Final

from stoker.control.access.authoriser import GrantsOf
from stoker.control.access.principals import (
    caller_of,
    identity_of,
    is_root,
    read_arn,
    request_keys,
    user_id_of,
)
from stoker.control.iam.answers import check_document, invalid
from stoker.core.clock import Clock
from stoker.core.errors import ServiceError
from stoker.core.policy.conditions import Values
from stoker.core.policy.documents import TRUST, read_policy
from stoker.core.policy.evaluation import Asked, Grants, decide, permits
from stoker.services import sts_types as types
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.credentials import Credential, SessionIssuer
from stoker.services.identity import Identities, Role

SESSION_DEFAULT_S: Final = 3600
USER_SESSION_DEFAULT_S: Final = 43_200
ROOT_SESSION_MAX_S: Final = 3600
SESSION_POLICY_MAX_CHARACTERS: Final = 2048

ASSUME_ROLE: Final = "sts:AssumeRole"

_UNSERVED: Final = {
    "policy_arns": "PolicyArns",
    "tags": "Tags",
    "transitive_tag_keys": "TransitiveTagKeys",
    "serial_number": "SerialNumber",
    "token_code": "TokenCode",
    "source_identity": "SourceIdentity",
    "provided_contexts": "ProvidedContexts",
}


class SecurityTokens:
    """Handlers of the operations of STS."""

    def __init__(
        self, identities: Identities, grants_of: GrantsOf, issuer: SessionIssuer, clock: Clock
    ) -> None:
        self._identities = identities
        self._grants_of = grants_of
        self._issuer = issuer
        self._clock = clock

    def operations(self) -> Mapping[str, OperationHandler]:
        """Handlers by operation."""
        return {
            "GetCallerIdentity": self.caller,
            "AssumeRole": self.assume_role,
            "GetSessionToken": self.session_token,
        }

    async def caller(
        self, context: RequestContext, request: types.GetCallerIdentityRequest
    ) -> types.GetCallerIdentityResponse:
        return types.GetCallerIdentityResponse(
            user_id=user_id_of(context.principal_arn, self._identities),
            account=read_arn(context.principal_arn)[1],
            arn=context.principal_arn,
        )

    async def assume_role(
        self, context: RequestContext, request: types.AssumeRoleRequest
    ) -> types.AssumeRoleResponse:
        for member, name in _UNSERVED.items():
            if getattr(request, member):
                raise ServiceError("NotImplemented", f"Stoker does not implement AssumeRole with {name} yet.")
        if is_root(context):
            raise _denied("Roles may not be assumed by root accounts.")
        role = self._trusting(context, request)
        duration_s = request.duration_seconds or SESSION_DEFAULT_S
        if duration_s > role.max_session_s:
            raise invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
        if request.policy:
            check_document(request.policy)
            if len(request.policy) > SESSION_POLICY_MAX_CHARACTERS:
                raise ServiceError("PackedPolicyTooLarge", "The session policy is too large.")
        credential = self._issuer.issue_session(
            account=role.account,
            role_arn=role.arn,
            session_name=request.role_session_name,
            lifetime_s=duration_s,
            session_policy=request.policy or "",
            bound_to=role.unique_id,
        )
        return types.AssumeRoleResponse(
            credentials=self._shown(credential, duration_s),
            assumed_role_user=types.AssumedRoleUser(
                assumed_role_id=f"{role.unique_id}:{request.role_session_name}",
                arn=credential.principal_arn,
            ),
        )

    async def session_token(
        self, context: RequestContext, request: types.GetSessionTokenRequest
    ) -> types.GetSessionTokenResponse:
        if request.serial_number or request.token_code:
            raise ServiceError("NotImplemented", "Stoker does not implement multi-factor authentication yet.")
        if context.bound_to:  # a session that could renew itself would never end
            raise _denied("Cannot call GetSessionToken with session credentials")
        duration_s = request.duration_seconds or USER_SESSION_DEFAULT_S
        if is_root(context):
            duration_s = min(duration_s, ROOT_SESSION_MAX_S)
        user = identity_of(context.principal_arn, self._identities)
        credential = self._issuer.issue_user_session(
            account=context.account,
            user_arn=context.principal_arn,
            lifetime_s=duration_s,
            bound_to=user.unique_id if user else "",
        )
        return types.GetSessionTokenResponse(credentials=self._shown(credential, duration_s))

    def _trusting(self, context: RequestContext, request: types.AssumeRoleRequest) -> Role:
        """The role, if it trusts the caller, and the caller may.

        Raises:
            ServiceError: AccessDenied, the same for a role that is not there.
        """
        refused = _denied(
            f"User: {context.principal_arn} is not authorized to perform: {ASSUME_ROLE} "
            f"on resource: {request.role_arn}"
        )
        fields = request.role_arn.split(":", 5)
        if len(fields) != 6:
            raise invalid(f"{request.role_arn} is invalid")
        role = self._identities.role(fields[4], fields[5].rpartition("/")[2])
        if role is None or role.arn != request.role_arn:
            raise refused
        if not self._may_assume(context, request, role):
            raise refused
        return role

    def _may_assume(self, context: RequestContext, request: types.AssumeRoleRequest, role: Role) -> bool:
        """The trust must name the caller in any case, unlike policies of other resources."""
        principal = caller_of(context, self._identities)
        keys = request_keys(context, principal, self._identities, self._clock.now_s())
        more: dict[str, Values] = {"sts:rolesessionname": request.role_session_name}
        if request.external_id is not None:
            more["sts:externalid"] = request.external_id
        more |= {f"aws:resourcetag/{name.lower()}": value for name, value in role.tags.items()}
        asked = Asked(principal, ASSUME_ROLE, role.arn, role.account, keys | more)
        grants = self._grants_of(context)
        trust = read_policy(role.trust, TRUST)
        whole = Grants(grants.identity, grants.boundary, grants.session, trust)
        return permits(trust, asked) and decide(asked, whole).allowed

    def _shown(self, credential: Credential, duration_s: int) -> types.Credentials:
        return types.Credentials(
            access_key_id=credential.access_key_id,
            secret_access_key=credential.secret,
            session_token=credential.session_token or "",
            expiration=float(int(self._clock.now_s()) + duration_s),
        )


def _denied(message: str) -> ServiceError:
    return ServiceError("AccessDenied", message)
