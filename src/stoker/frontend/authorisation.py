"""The authoriser's fake: an account's own principals act as its administrators, nobody else does."""

from stoker.core.errors import ServiceError
from stoker.services.context import RequestContext
from stoker.services.functions import FunctionKey


class AccountAuthoriser:
    """Every authenticated principal of an account may do everything to the account's functions.

    No policy is evaluated. For tests and simulations; ``control.access`` has the real one.
    """

    def allows_nowait(
        self, context: RequestContext, action: str, function: FunctionKey, qualifier: str | None
    ) -> bool:
        return context.account == function.account

    async def authorise(
        self, context: RequestContext, action: str, function: FunctionKey, qualifier: str | None
    ) -> None:
        if context.account != function.account:
            raise access_denied(context, action, function, qualifier)

    async def allows_url(
        self,
        context: RequestContext | None,
        function: FunctionKey,
        qualifier: str | None,
        *,
        auth_type: str,
        source_ip: str,
    ) -> bool:
        return auth_type == "NONE" or (context is not None and context.account == function.account)


def access_denied(
    context: RequestContext, action: str, function: FunctionKey, qualifier: str | None
) -> ServiceError:
    """403 AccessDeniedException, as AWS words it for a resource of another account."""
    resource = function.arn if qualifier is None else f"{function.arn}:{qualifier}"
    return ServiceError(
        "AccessDeniedException",
        f"User: {context.principal_arn} is not authorized to perform: {action} on resource: {resource} "
        f"because no resource-based policy allows the {action} action",
    )
