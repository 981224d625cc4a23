"""What can go wrong on an HTTP connection, for server handlers and client callers alike."""

from typing import Self

from stoker.core.errors import StokerError


class HttpError(StokerError):
    """Root of everything this package raises on purpose."""

    def copy(self) -> Self:
        """A new exception that says the same, without the traceback."""
        return type(self)(*self.args)


class BodyTooLarge(HttpError):
    """A body is longer than the reader's or the server's limit; the rest of it is not read."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the body is larger than {self.limit_bytes} bytes"


class BodyBroken(HttpError):
    """A body cannot be read to its end: malformed framing, or the peer was idle for too long."""


class PeerVanished(HttpError):
    """The connection ended before the exchange did."""


class InvalidHeader(HttpError):
    """A header that must not go on the wire: CR, LF, NUL, a bad name, or framing that is not the caller's."""


class ReplyMisuse(HttpError):
    """A handler answered twice, wrote before ``start`` or broke its own content-length."""


class ClientError(HttpError):
    """The client could not complete an exchange."""


class ConnectFailed(ClientError):
    """No connection could be made; nothing of the request was sent."""


class ExchangeTimeout(ClientError):
    """The exchange took longer than its ``timeout_s``; whether the server acted on it is unknown."""


class ResponseInvalid(ClientError):
    """The server's answer is not HTTP/1.1, or is larger than the caller's limit."""


class PoolExhausted(ClientError):
    """Too many callers already wait for a connection to this origin."""
