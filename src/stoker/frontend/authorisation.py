"""The authoriser of this issue: an account's own principals act as its administrators, nobody else does."""

from stoker.core.errors import ServiceError
from stoker.services.context import RequestContext
from stoker.services.functions import FunctionKey


class AccountAuthoriser:
    """Every authenticated principal of an account may do everything to the account's functions.

    This is what AWS grants an account's root, and any principal with an administrator's policy. Identity
    policies, and resource policies that let other accounts in, are not evaluated: other accounts are refused.
    """

    def authorise(
        self, context: RequestContext, action: str, function: FunctionKey, qualifier: str | None
    ) -> None:
        if context.account != function.account:
            raise access_denied(context, action, function, qualifier)


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
