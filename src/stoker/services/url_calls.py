"""A request to a function URL on its way from ``api`` to ``frontend``: by id, without HTTP."""

from typing import Protocol

import msgspec

from stoker.services.context import RequestContext
from stoker.services.invocation import InvokeResponse
from stoker.services.lambda_types import Cors


class UrlRoute(msgspec.Struct, frozen=True):
    """What the door must know of a URL before it reads a body."""

    account: str
    auth_type: str
    cors: Cors | None = None


class UrlCall(msgspec.Struct, frozen=True):
    """One request, already an event of payload format 2.0."""

    request_id: str
    url_id: str
    region: str
    payload: bytes
    source_ip: str
    trace_id: str | None = None
    caller: RequestContext | None = None
    """Whose signature was good; None: nobody known."""


class UrlFrontend(Protocol):
    """The data plane's door for function URLs."""

    async def route(self, url_id: str, region: str) -> UrlRoute | None:
        """The URL of that id, or None.

        Raises:
            ServiceError: ServiceUnavailableException when too many ids that are not known are asked for.
        """
        ...

    async def open_to_all(self, url_id: str, region: str, source_ip: str) -> bool:
        """Whether the policy lets anybody in: asked before a large body of a stranger is read."""
        ...

    async def invoke(self, call: UrlCall) -> InvokeResponse:
        """Authorise and run; as ``Frontend.invoke`` for everything behind.

        Raises:
            ServiceError: AccessDeniedException also for a URL, or an alias of one, that is not there.
        """
        ...
