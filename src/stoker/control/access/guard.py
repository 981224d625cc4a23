"""Puts the authoriser before every operation's handler, whatever room serves it."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from stoker.control.access.authoriser import PolicyAuthoriser, Question
from stoker.control.access.lambda_actions import LAMBDA_ACTIONS, action_of, layer_question
from stoker.control.access.other_actions import IAM_ACTIONS, LOGS_ACTIONS, STS_UNCHECKED
from stoker.control.access.other_actions import Ask as OtherAsk
from stoker.core.policy.evaluation import ROOT
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.identity import Identities
from stoker.services.layers import parse_layer_arn

LAMBDA_SERVICE: Final = "lambda.amazonaws.com"

_OTHER: Final[dict[str, dict[str, OtherAsk]]] = {"logs": LOGS_ACTIONS, "iam": IAM_ACTIONS}
_CONFIGURING: Final = frozenset({"CreateFunction", "UpdateFunctionConfiguration"})

Handlers = Mapping[str, Mapping[str, OperationHandler]]


class Guard:
    """Asks before each operation. Root of the account that the resources belong to is never kept waiting."""

    def __init__(self, authoriser: PolicyAuthoriser, identities: Identities) -> None:
        self._authoriser = authoriser
        self._identities = identities

    def guarded(self, handlers: Handlers) -> dict[str, dict[str, OperationHandler]]:
        """The handlers, each behind its question.

        Raises:
            KeyError: an operation has no row in the tables of actions.
        """
        return {
            service: {name: self._guarded(service, name, handler) for name, handler in served.items()}
            for service, served in handlers.items()
        }

    def _guarded(self, service: str, operation: str, handler: OperationHandler) -> OperationHandler:
        if service == "sts":
            if operation not in STS_UNCHECKED:
                raise KeyError(operation)
            return handler
        if service == "lambda":
            return self._guarded_lambda(operation, handler)
        ask = _OTHER[service][operation]
        action = f"{service}:{operation}"

        async def guarded(context: RequestContext, request: Any) -> Any:
            await self._authoriser.check(context, ask(context, request, action, self._identities))
            return await handler(context, request)

        return guarded

    def _guarded_lambda(self, operation: str, handler: OperationHandler) -> OperationHandler:
        ask = LAMBDA_ACTIONS[operation]
        action = action_of(operation)
        configures = operation in _CONFIGURING

        async def guarded(context: RequestContext, request: Any) -> Any:
            question = ask(context, request, action)
            await self._authoriser.check(context, question)
            if operation == "CreateFunction" and request.tags:
                # Seen with AWS: tags at creation are asked for as if they were put on afterwards.
                await self._authoriser.check(context, ask(context, request, "lambda:TagResource"))
            if configures:
                await self._check_configuring(context, question.account, request)
            if question.account != context.account:
                # Let in by the other account: from here on it is as if asked there.
                context = msgspec.structs.replace(context, account=question.account)
            return await handler(context, request)

        return guarded

    async def _check_configuring(self, context: RequestContext, account: str, request: Any) -> None:
        """A function of ``account`` gets only a role that its maker may pass, and layers that its maker may
        read."""
        if context.principal_arn.endswith(f":{ROOT}") and context.account == account:
            return
        if request.role is not None:
            await self._authoriser.check(context, pass_role_question(context, request.role))
        for arn in request.layers or ():
            parsed = parse_layer_arn(arn)
            if parsed is not None:
                await self._authoriser.check(context, layer_question("lambda:GetLayerVersion", *parsed))


def pass_role_question(context: RequestContext, role_arn: str) -> Question:
    """May the caller give the role to Lambda? Another account's is nobody's to pass, as on AWS."""
    return Question(
        action="iam:PassRole",
        resource=role_arn,
        account=role_arn.split(":", 5)[4],
        keys={"iam:passedtoservice": LAMBDA_SERVICE},
    )
