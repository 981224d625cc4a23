"""Which requests are for a function URL: by the Host, or by a path below ``/_stoker/url/``. Pure.

What is for a URL never reaches the API's own operations, and the other way round: the Host decides first.
"""

import re
from typing import Final

import msgspec

from stoker.http.messages import Request

PATH_PREFIX: Final = b"/_stoker/url/"

_MARK: Final = b".lambda-url."
_SEGMENT: Final = re.compile(rb"([a-z2-7]{32})(?:\.([a-z0-9-]{1,32}))?")


class UrlAddress(msgspec.Struct, frozen=True):
    """Where a request went. ``url_id`` is empty for what can be no id."""

    url_id: str
    region: str
    domain_name: str
    """The URL's own host name, with the port it was reached on if there was one."""
    path: bytes
    """As the function sees it, still percent-encoded; begins with a slash."""


class UrlAddresses:
    """Tells the requests for URLs; ``domain`` is what their host names end in."""

    def __init__(self, domain: str, region: str) -> None:
        self._domain = domain
        self._region = region
        self._host = re.compile(
            rb"(.*)\.lambda-url\.([a-z0-9-]{1,32})\." + re.escape(domain.encode()) + rb"\.?(:[0-9]{0,5})?"
        )

    def find(self, request: Request, path: bytes) -> UrlAddress | None:
        """The address, or None for a request to the API; ``path`` is the request's."""
        host = request.header(b"host") or b""
        lowered = host.lower()
        if _MARK in lowered:
            named = self._host.fullmatch(lowered)
            if named is not None:
                return self._named(named[1], named[2], named[3] or b"", path)
        if path.startswith(PATH_PREFIX):
            return self._below(path, host)
        return None

    def _named(self, label: bytes, region: bytes, port: bytes, path: bytes) -> UrlAddress:
        known = _SEGMENT.fullmatch(label)
        return self._address(label if known else b"", region, port, path)

    def _below(self, path: bytes, host: bytes) -> UrlAddress:
        segment, slash, rest = path[len(PATH_PREFIX) :].partition(b"/")
        known = _SEGMENT.fullmatch(segment)
        port = host[host.rfind(b":") :] if re.search(rb":[0-9]{1,5}$", host) else b""
        if known is None:
            return self._address(b"", b"", port, slash + rest)
        return self._address(known[1], known[2] or self._region.encode(), port, slash + rest)

    def _address(self, url_id: bytes, region: bytes, port: bytes, path: bytes) -> UrlAddress:
        name = f"{url_id.decode()}.lambda-url.{region.decode()}.{self._domain}{port.decode()}"
        return UrlAddress(url_id.decode(), region.decode(), name, path or b"/")
