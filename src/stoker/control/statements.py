"""Resource policies as Lambda writes them: statements from requests, the documents around them. Pure.

Functions and layers share it. Order and spelling of members are those of AWS's answers.
"""

import re
from typing import Any, Final, cast

import msgspec

from stoker.core.errors import ServiceError, conflict, invalid_parameter
from stoker.core.policy.documents import RESOURCE, MalformedPolicy, Policy, read_policy
from stoker.services.lambda_types import AddLayerVersionPermissionRequest, AddPermissionRequest

POLICY_MAX_BYTES: Final = 20_480

_ACCOUNT: Final = re.compile(r"\d{12}", re.ASCII)
_SERVICE: Final = re.compile(r"[a-z0-9][a-z0-9.-]*\.(amazonaws\.com(\.cn)?|amazon\.com)", re.ASCII)
_AWS_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:(iam::\d{12}:(root|user/\S+|role/\S+)"
    r"|sts::\d{12}:(assumed-role/[^\s/]+/[^\s/]+|federated-user/\S+)"
    r"|cloudfront::\d+:\S+|iam::cloudfront:user/\S+)",
    re.ASCII,
)

Statement = dict[str, Any]


class ResourcePolicy(msgspec.Struct, frozen=True):
    """The stored document: its statements in the order in which they were added."""

    statements: tuple[Statement, ...] = ()
    version: str = "2012-10-17"
    document_id: str | None = "default"

    def text(self) -> str:
        """As GetPolicy shows it."""
        document: dict[str, Any] = {"Version": self.version}
        if self.document_id is not None:
            document["Id"] = self.document_id
        document["Statement"] = self.statements
        return msgspec.json.encode(document).decode()

    def policy(self) -> Policy:
        """For evaluation."""
        return read_policy(self.text(), RESOURCE)

    def adding(self, statement: Statement) -> "ResourcePolicy":
        """The policy with one statement more.

        Raises:
            ServiceError: ResourceConflictException, PolicyLengthExceededException.
        """
        sid = statement["Sid"]
        if any(each.get("Sid") == sid for each in self.statements):
            raise conflict(
                f"The statement id ({sid}) provided already exists. Please provide a new statement id, "
                "or remove the existing statement."
            )
        grown = msgspec.structs.replace(self, statements=(*self.statements, statement))
        _check_length(grown)
        return grown

    def without(self, sid: str) -> "ResourcePolicy | None":
        """The policy without a statement; None when it has none of that id."""
        left = tuple(each for each in self.statements if each.get("Sid") != sid)
        if len(left) == len(self.statements):
            return None
        return msgspec.structs.replace(self, statements=left)


def _check_length(policy: ResourcePolicy) -> None:
    size = len(policy.text().encode())
    if size > POLICY_MAX_BYTES:
        raise ServiceError(
            "PolicyLengthExceededException",
            f"The final policy size ({size}) is bigger than the limit ({POLICY_MAX_BYTES}).",
            fields={"Type": "User"},
        )


def whole_policy(text: str, resource: str) -> ResourcePolicy:
    """A document that a caller wrote, every statement about ``resource``.

    Raises:
        ServiceError: InvalidParameterValueException with IAM's words, PolicyLengthExceededException.
    """
    try:
        read = read_policy(text, RESOURCE)
    except MalformedPolicy as problem:
        raise invalid_parameter(f"The policy is not valid: {problem}") from problem
    for statement in read.statements:
        if statement.without_resources or any(each not in (resource, "*") for each in statement.resources):
            raise invalid_parameter(f"The policy is not valid: every Resource must be {resource}.")
    document: dict[str, Any] = msgspec.json.decode(text)
    given: Any = document["Statement"]
    statements = tuple(cast("list[Statement]", given if isinstance(given, list) else [given]))
    policy = ResourcePolicy(statements, document.get("Version", "2008-10-17"), document.get("Id"))
    _check_length(policy)
    return policy


def function_statement(request: AddPermissionRequest, resource: str) -> Statement:
    """The statement that AddPermission asks for.

    Raises:
        ServiceError: InvalidParameterValueException for principals and members that do not go together.
    """
    if request.function_url_auth_type is not None and request.action != "lambda:InvokeFunctionUrl":
        raise invalid_parameter("FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action")
    if request.invoked_via_function_url and request.action != "lambda:InvokeFunction":
        raise invalid_parameter("InvokedViaFunctionUrl is only supported for lambda:InvokeFunction action")
    return _statement(
        request.statement_id, _principal(request.principal), request.action, resource, _conditions(request)
    )


def layer_statement(request: AddLayerVersionPermissionRequest, resource: str) -> Statement:
    """The statement that AddLayerVersionPermission asks for.

    Raises:
        ServiceError: InvalidParameterValueException for a principal that is none.
    """
    condition: dict[str, dict[str, str]] = {}
    if request.organization_id is not None:
        if request.principal != "*":
            raise invalid_parameter("OrganizationId may only be specified when Principal is '*'.")
        condition["StringEquals"] = {"aws:PrincipalOrgID": request.organization_id}
    return _statement(
        request.statement_id, _principal(request.principal), request.action, resource, condition
    )


def _statement(
    sid: str, principal: str | dict[str, str], action: str, resource: str, condition: dict[str, Any]
) -> Statement:
    statement: Statement = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": principal,
        "Action": action,
        "Resource": resource,
    }
    if condition:
        statement["Condition"] = condition
    return statement


def _principal(principal: str) -> str | dict[str, str]:
    if principal == "*":
        return principal
    if _ACCOUNT.fullmatch(principal):
        return {"AWS": f"arn:aws:iam::{principal}:root"}
    if _SERVICE.fullmatch(principal):
        return {"Service": principal}
    if _AWS_ARN.fullmatch(principal) and "*" not in principal and "?" not in principal:
        return {"AWS": principal}
    raise invalid_parameter("The provided principal was invalid. Please check the principal and try again.")


def _conditions(request: AddPermissionRequest) -> dict[str, dict[str, str]]:
    equals = {
        "AWS:SourceAccount": request.source_account,
        "aws:PrincipalOrgID": request.principal_org_id,
        "lambda:EventSourceToken": request.event_source_token,
        "lambda:FunctionUrlAuthType": request.function_url_auth_type,
    }
    conditions: dict[str, dict[str, str]] = {}
    given = {name: value for name, value in equals.items() if value}
    if given:
        conditions["StringEquals"] = given
    if request.source_arn:
        conditions["ArnLike"] = {"AWS:SourceArn": request.source_arn}
    if request.invoked_via_function_url:
        conditions["Bool"] = {"lambda:InvokedViaFunctionUrl": "true"}
    return conditions
