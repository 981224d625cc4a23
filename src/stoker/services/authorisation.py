"""May this caller do that? Asked by every room that acts for a caller, answered by one authoriser."""

from typing import Protocol

from stoker.services.context import RequestContext
from stoker.services.functions import FunctionKey

INVOKE_FUNCTION = "lambda:InvokeFunction"


class Authoriser(Protocol):
    """Plain and cheap: it is asked on the warm path."""

    def authorise(
        self, context: RequestContext, action: str, function: FunctionKey, qualifier: str | None
    ) -> None:
        """Return when ``action`` (``lambda:InvokeFunction``) on the function is allowed.

        Raises:
            ServiceError: AccessDeniedException, worded as AWS words it.
        """
        ...
