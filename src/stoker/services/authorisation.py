"""May this caller do that? Asked by every room that acts for a caller, answered by one authoriser."""

from typing import Protocol

from stoker.services.context import RequestContext
from stoker.services.functions import FunctionKey

INVOKE_FUNCTION = "lambda:InvokeFunction"
INVOKE_FUNCTION_URL = "lambda:InvokeFunctionUrl"


class Authoriser(Protocol):
    """Whether a caller may use a function. ``allows_nowait`` is asked on the warm path, and is cheap."""

    def allows_nowait(
        self, context: RequestContext, action: str, function: FunctionKey, qualifier: str | None
    ) -> bool:
        """Whether ``action`` on the function is known to be allowed; False: ``authorise`` must decide."""
        ...

    async def authorise(
        self, context: RequestContext, action: str, function: FunctionKey, qualifier: str | None
    ) -> None:
        """Return when ``action`` (``lambda:InvokeFunction``) on the function is allowed.

        Raises:
            ServiceError: AccessDeniedException, worded as AWS words it.
        """
        ...

    async def allows_url(
        self,
        context: RequestContext | None,
        function: FunctionKey,
        qualifier: str | None,
        *,
        auth_type: str,
        source_ip: str,
    ) -> bool:
        """Whether a function URL may be called: ``lambda:InvokeFunctionUrl`` and, through the URL,
        ``lambda:InvokeFunction``, which strangers need not be allowed as long as it is not denied.
        ``context``: the caller whose signature was good; None: nobody known."""
        ...
