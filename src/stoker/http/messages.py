"""What a handler sees of HTTP: the request, its body and the reply. Nothing here knows sockets or parsers."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from stoker.http.body import BodyStream, Headers

__all__ = ["BodyStream", "Handler", "Headers", "Reply", "Request", "header_value"]


def header_value(headers: Headers, name: bytes) -> bytes | None:
    """The first value under ``name`` (lower-case), or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


def _no_extra_info(name: str) -> Any:
    """For requests that came over no transport."""
    return None


class Request(msgspec.Struct, eq=False):
    """One request as it came: nothing is decoded, header names are lower-case and in the peer's order.

    ``body`` is the whole body when it was small; a larger one is read from ``stream`` instead.
    ``trailers`` are those of a chunked body that came whole (``stream.trailers`` otherwise).
    ``extra_info`` is the transport's ``get_extra_info``; ``peers`` reads credentials, certificates.
    """

    method: bytes
    target: bytes
    headers: Headers
    peer: str
    secure: bool
    body: bytes = b""
    stream: BodyStream | None = None
    trailers: Headers | None = None
    extra_info: Callable[[str], Any] = _no_extra_info

    @property
    def path(self) -> bytes:
        """The path, still percent-encoded; of an absolute-form target what follows the authority."""
        return self._origin_form().partition(b"?")[0]

    @property
    def query(self) -> bytes:
        """What follows the first '?', still percent-encoded; empty when there is none."""
        return self._origin_form().partition(b"?")[2]

    def header(self, name: bytes) -> bytes | None:
        """The first value of header ``name`` (lower-case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def _origin_form(self) -> bytes:
        target = self.target
        if target.startswith(b"/") or target == b"*":
            return target
        rest = target.partition(b"://")[2]
        slash, question = rest.find(b"/"), rest.find(b"?")
        if slash < 0 or 0 <= question < slash:
            return b"/" + rest[question:] if question >= 0 else b"/"
        return rest[slash:]


class Reply(Protocol):
    """The answer to one request; every handler ends it with exactly one of send, send_raw, finish or abort.

    Once the peer is gone (``closed``) everything sent is dropped silently, except that ``write`` raises
    PeerVanished so that producers stop.
    """

    @property
    def closed(self) -> bool:
        """The reply is complete, or its connection is gone."""
        ...

    @property
    def started(self) -> bool:
        """Something of the answer is already on its way; its status can no longer change."""
        ...

    def send(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Answer at once. ``content-length``, ``date`` and ``connection`` are added.

        Raises InvalidHeader for CR, LF or NUL, bad names and transfer-encoding; ReplyMisuse when
        already started.
        """
        ...

    def send_raw(self, prefix: bytes, body: bytes) -> None:
        """Answer with a head that ``wire.prepare_head`` serialised before."""
        ...

    def start(self, status: int, headers: Headers) -> None:
        """Begin a streamed answer: chunked, unless ``headers`` hold a content-length."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Send a piece and wait while the peer is slow. Raises PeerVanished when it is gone."""
        ...

    def finish(self, trailers: Headers | None = None) -> None:
        """End a streamed answer; trailers need chunked framing."""
        ...

    def abort(self) -> None:
        """Cut the connection, so that the peer cannot take the answer for complete."""
        ...

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once if the client vanishes before the reply is complete, or already has."""
        ...


Handler = Callable[[Request, Reply], None]
"""Called once per request, synchronously; it may answer at once or keep the reply for later."""
