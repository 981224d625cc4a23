"""The one authoriser: gathers the policies that apply to a question, has them evaluated, keeps what lasts.

Decisions that depend on nothing but principal, action and resource are kept until an identity, a policy or
the function changes.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from stoker.control.access.principals import (
    address_of,
    caller_of,
    identity_of,
    is_current,
    is_root,
    read_arn,
    request_keys,
)
from stoker.control.policies import POLICY_KIND
from stoker.control.statements import ResourcePolicy
from stoker.core.clock import Clock
from stoker.core.errors import ServiceError
from stoker.core.policy.conditions import Values
from stoker.core.policy.documents import Policy, read_policy
from stoker.core.policy.evaluation import (
    ANONYMOUS,
    SESSION,
    Asked,
    Decision,
    Grants,
    Principal,
    Reason,
    decide,
)
from stoker.services.authorisation import INVOKE_FUNCTION, INVOKE_FUNCTION_URL
from stoker.services.context import RequestContext
from stoker.services.functions import FunctionKey, FunctionMetadata, Invalidation
from stoker.services.identity import Identities
from stoker.services.layers import POLICY_KIND as LAYER_POLICY_KIND
from stoker.services.records import RecordKey, Records, Shelf

FUNCTIONS_KEPT: Final = 10_000
DECISIONS_KEPT: Final = 1_000
"""Of one function."""
FUNCTION_POLICIES_KEPT: Final = 2_000
"""Functions whose resource policies are kept read."""
POLICIES_KEPT: Final = 10_000
"""Identities whose policies are kept read."""

K = TypeVar("K")
V = TypeVar("V")

_NOTHING: Final = Policy(())

GrantsOf = Callable[[RequestContext], Grants]
"""The caller's own policies, without any resource's."""

_Key = tuple[str, str, str, str, str, str | None]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One action on one resource, as an operation asks it."""

    action: str
    resource: str
    account: str
    """The resource's."""
    keys: Mapping[str, Values] = {}
    """Condition keys beside those that every request has."""
    function: FunctionKey | None = None
    """Whose tags, and with ``qualifier`` whose policy, count."""
    qualifier: str | None = None
    layer: tuple[str, str] | None = None
    """(region:account:name is the resource's) name and version of a layer, whose policy counts."""
    aliases: tuple[str, ...] = ()
    """Other ways to write the resource, one of which policies may have in mind."""
    code: str = "AccessDeniedException"


class PolicyAuthoriser:
    """The Authoriser port, and ``check`` for operations in general."""

    def __init__(
        self,
        identities: Identities,
        records: Records,
        metadata: FunctionMetadata,
        invalidation: Invalidation,
        clock: Clock,
        *,
        lenient_roles: bool,
    ) -> None:
        self._identities = identities
        self._policies = Shelf(records, POLICY_KIND, ResourcePolicy)
        self._layer_policies = Shelf(records, LAYER_POLICY_KIND, ResourcePolicy)
        self._metadata = metadata
        self._clock = clock
        self._lenient_roles = lenient_roles
        self._grants: dict[tuple[str, str], Grants] = {}
        self._allowed: dict[FunctionKey, set[_Key]] = {}
        self._function_policies: dict[FunctionKey, dict[str, Policy | None]] = {}
        self._generation = 0
        identities.subscribe(self._forget_all)
        invalidation.subscribe(self._forget)

    # --- on the warm path

    def allows_nowait(
        self, context: RequestContext, action: str, function: FunctionKey, qualifier: str | None
    ) -> bool:
        if context.account == function.account and is_root(context):
            return True
        allowed = self._allowed.get(function)
        return allowed is not None and (_key_of(context, action, qualifier) in allowed)

    async def authorise(
        self, context: RequestContext, action: str, function: FunctionKey, qualifier: str | None
    ) -> None:
        if self.allows_nowait(context, action, function, qualifier):
            return
        generation = self._generation
        question = function_question(action, function, qualifier)
        decision = await self._decide(context, question)
        if not decision.allowed:
            raise denied(context.principal_arn, question, decision.reason)
        if decision.lasting and generation == self._generation:
            self._remember(function, _key_of(context, action, qualifier))

    async def allows_url(
        self,
        context: RequestContext | None,
        function: FunctionKey,
        qualifier: str | None,
        *,
        auth_type: str,
        source_ip: str,
    ) -> bool:
        keys: dict[str, Values] = {
            "lambda:functionurlauthtype": auth_type,
            "lambda:invokedviafunctionurl": "true",
        }
        for action in (INVOKE_FUNCTION_URL, INVOKE_FUNCTION):
            question = function_question(action, function, qualifier, keys)
            if context is None or auth_type == "NONE":
                decision = await self._decide_anonymously(question, source_ip)
                # Recorded: a statement about InvokeFunctionUrl alone opens a URL to everybody.
                silent = action == INVOKE_FUNCTION and decision.reason is Reason.RESOURCE_SILENT
                if not decision.allowed and not silent:
                    return False
                continue
            if context.account == function.account and is_root(context):
                return True
            decision = await self._decide(context, question)
            if not decision.allowed:
                return False
        return True

    # --- for every other operation

    async def check(self, context: RequestContext, question: Question) -> None:
        """Return when the action is allowed.

        Raises:
            ServiceError: of ``question.code``, worded as AWS words it.
        """
        if context.account == question.account and is_root(context):
            return
        decision = await self._decide(context, question)
        if not decision.allowed:
            raise denied(context.principal_arn, question, decision.reason)

    async def _decide(self, context: RequestContext, question: Question) -> Decision:
        principal = caller_of(context, self._identities)
        keys = request_keys(context, principal, self._identities, self._clock.now_s())
        grants = await self._grants_for(context, question)
        keys.update(question.keys)
        keys.update(await self._resource_keys(question))
        decisions = [
            decide(Asked(principal, question.action, resource, question.account, keys), grants)
            for resource in (question.resource, *question.aliases)
        ]
        # An alias may only add an allow: a deny of either name of the resource holds for both.
        for decision in decisions:
            if "deny" in decision.reason.value:
                return decision
        return next((each for each in decisions if each.allowed), decisions[0])

    async def _decide_anonymously(self, question: Question, source_ip: str) -> Decision:
        keys = {"aws:sourceip": address_of(source_ip), "aws:principalisawsservice": "false", **question.keys}
        grants = Grants(resource=await self._resource_policy(question))
        principal = Principal(ANONYMOUS, "*", "")
        return decide(Asked(principal, question.action, question.resource, question.account, keys), grants)

    # --- what applies

    async def _grants_for(self, context: RequestContext, question: Question) -> Grants:
        resource = await self._resource_policy(question)
        return msgspec.structs.replace(self.grants_of(context), resource=resource)

    def grants_of(self, context: RequestContext) -> Grants:
        """The caller's own policies, and what narrows them."""
        if not is_current(context, self._identities):
            return Grants()
        own = self._identity_grants(context.principal_arn)
        if not context.session_policy:
            return own
        return msgspec.structs.replace(own, session=read_policy(context.session_policy))

    def _identity_grants(self, arn: str) -> Grants:
        kind, account, name, session = read_arn(arn)
        key = (f"{kind}:{account}", name if kind != SESSION else f"{name}/{session}")
        found = self._grants.get(key)
        if found is None:
            found = self._read_grants(arn)
            if len(self._grants) >= POLICIES_KEPT:
                self._grants.clear()
            self._grants[key] = found
        return found

    def _read_grants(self, arn: str) -> Grants:
        identity = identity_of(arn, self._identities)
        if identity is None:
            return Grants(self._unknown(arn))
        attached = [self._identities.managed(policy) for policy in identity.attached]
        documents = [*identity.inline.values(), *(policy.document for policy in attached if policy)]
        boundary: Policy | None = None
        if identity.boundary:
            bound = self._identities.managed(identity.boundary)
            # A boundary that is gone lets nothing through.
            boundary = _NOTHING if bound is None else read_policy(bound.document)
        return Grants(tuple(read_policy(document) for document in documents), boundary)

    def _unknown(self, arn: str) -> tuple[Policy, ...]:
        """What a function may whose role is not kept here: write its own log."""
        kind, account, _, session = read_arn(arn)
        if kind != SESSION or not self._lenient_roles:
            return ()
        group = f"arn:aws:logs:*:{account}:log-group:/aws/lambda/{session}"
        actions = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
        statement: dict[str, Any] = {"Effect": "Allow", "Action": actions, "Resource": [group, f"{group}:*"]}
        document = {"Version": "2008-10-17", "Statement": [statement]}
        return (read_policy(msgspec.json.encode(document).decode()),)

    async def _resource_policy(self, question: Question) -> Policy | None:
        if question.function is not None:
            return await self._function_policy(question.function, question.qualifier or "")
        if question.layer is not None:
            region = question.resource.split(":", 4)[3] if question.resource.startswith("arn:") else ""
            record = RecordKey(LAYER_POLICY_KIND, question.account, region, *question.layer)
            stored = await self._layer_policies.get(record)
            return None if stored is None else stored.value.policy()
        return None

    async def _function_policy(self, function: FunctionKey, name: str) -> Policy | None:
        """From memory where it is known: function URLs ask at each request."""
        known = self._function_policies.get(function)
        if known is not None and name in known:
            return known[name]
        generation = self._generation
        record = RecordKey(POLICY_KIND, function.account, function.region, function.name, name)
        stored = await self._policies.get(record)
        policy = None if stored is None else stored.value.policy()
        if generation == self._generation:
            _keep(self._function_policies, function, {}, FUNCTION_POLICIES_KEPT)
            _keep(self._function_policies[function], name, policy, DECISIONS_KEPT)
        return policy

    async def _resource_keys(self, question: Question) -> dict[str, Values]:
        keys: dict[str, Values] = {"aws:resourceaccount": question.account}
        if question.function is not None:
            function = await self._metadata.function(question.function)
            tags = function.tags if function else {}
            keys |= {f"aws:resourcetag/{name.lower()}": value for name, value in tags.items()}
        return keys

    # --- what is remembered

    def _remember(self, function: FunctionKey, key: _Key) -> None:
        if function not in self._allowed and len(self._allowed) >= FUNCTIONS_KEPT:
            del self._allowed[next(iter(self._allowed))]
        allowed = self._allowed.setdefault(function, set())
        if len(allowed) >= DECISIONS_KEPT:
            allowed.clear()
        allowed.add(key)

    def _forget(self, function: FunctionKey) -> None:
        self._generation += 1
        self._allowed.pop(function, None)
        self._function_policies.pop(function, None)

    def _forget_all(self) -> None:
        self._generation += 1
        self._allowed.clear()
        self._grants.clear()


def _keep(kept: dict[K, V], key: K, value: V, limit: int) -> None:
    """Keep the value unless one is kept already; the oldest goes where that is one too many."""
    if key not in kept:
        if len(kept) >= limit:
            del kept[next(iter(kept))]
        kept[key] = value


def _key_of(context: RequestContext, action: str, qualifier: str | None) -> _Key:
    caller = context.principal_arn, context.account, context.bound_to, context.session_policy
    return (*caller, action, qualifier)


def function_question(
    action: str,
    function: FunctionKey,
    qualifier: str | None,
    keys: Mapping[str, Values] | None = None,
) -> Question:
    """An action on a function, a version or an alias."""
    resource = function.arn if qualifier is None else f"{function.arn}:{qualifier}"
    return Question(
        action=action,
        resource=resource,
        account=function.account,
        function=function,
        qualifier=qualifier,
        keys=keys or {},
    )


def denied(principal_arn: str, question: Question, reason: Reason) -> ServiceError:
    """403, worded as AWS words it."""
    because = reason.value.replace("{}", question.action)
    return ServiceError(
        question.code,
        f"User: {principal_arn} is not authorized to perform: {question.action} "
        f"on resource: {question.resource} {because}",
    )
