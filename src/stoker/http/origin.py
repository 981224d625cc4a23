"""Where a client connects to, and request heads for it. Pure."""

import re
from functools import lru_cache
from urllib.parse import urlsplit

import msgspec

from stoker.http.body import Headers
from stoker.http.errors import InvalidHeader
from stoker.http.wire import CONNECTION, FORBIDDEN, LENGTH, header_lines, length_digits, name_kind

_TARGET = re.compile(rb"[\x21-\x7e]+")
_METHOD = re.compile(r"[A-Z]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(msgspec.Struct, frozen=True):
    """One peer: ``host:port`` over TCP or TLS, or a Unix socket (``host`` is then only a name)."""

    host: str
    port: int = 80
    secure: bool = False
    unix_path: str | None = None

    @property
    def authority(self) -> bytes:
        """The value of the Host header; a default port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.unix_path is not None or self.port == (443 if self.secure else 80):
            return host.encode()
        return f"{host}:{self.port}".encode()


def unix_origin(path: str, host: str = "localhost") -> Origin:
    """The server listening on the Unix socket ``path``."""
    return Origin(host, unix_path=path)


@lru_cache(maxsize=1024)
def split_url(url: str) -> tuple[Origin, bytes]:
    """An absolute http or https URL to its origin and request target; ValueError for any other."""
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username is not None:
        raise ValueError(f"{url!r} is not an http or https URL without credentials")
    target = parts.path or "/"
    if parts.query:
        target = f"{target}?{parts.query}"
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    return Origin(parts.hostname, port, parts.scheme == "https"), target.encode()


def request_head(
    method: str, target: bytes, authority: bytes, headers: Headers, size_bytes: int | None
) -> bytes:
    """Serialise a request head; ``size_bytes`` None means a chunked body.

    Raises InvalidHeader for anything that could split or reframe the request.
    """
    if not _METHOD.fullmatch(method) or not _TARGET.fullmatch(target):
        raise InvalidHeader("the method or the request target cannot go on a request line")
    host = b"host: " + authority + b"\r\n"
    for name, value in headers:
        kind = name_kind(name)
        if name.lower() == b"host":
            host = b""
        if kind == FORBIDDEN or (kind == CONNECTION and value.strip().lower() != b"close"):
            raise InvalidHeader(f"{name.decode()} is the client's to set")
        if kind == LENGTH:
            raise InvalidHeader("content-length follows from the body")
    return b"".join(
        (
            method.encode(),
            b" ",
            target,
            b" HTTP/1.1\r\n",
            host,
            header_lines(headers),
            _framing(method, size_bytes),
            b"\r\n",
        )
    )


def _framing(method: str, size_bytes: int | None) -> bytes:
    if size_bytes is None:
        return b"transfer-encoding: chunked\r\n"
    if size_bytes or method in ("POST", "PUT", "PATCH"):
        return b"content-length: " + length_digits(size_bytes) + b"\r\n"
    return b""
