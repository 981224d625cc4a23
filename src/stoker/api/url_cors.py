"""CORS of function URLs: Lambda answers preflights itself and overrides what functions say. Pure."""

from typing import Final

from stoker.http.messages import Headers, Request
from stoker.services.lambda_types import Cors

_ALLOW: Final = b"access-control-allow-"
_EXPOSE: Final = b"access-control-expose-headers"
_MAX_AGE: Final = b"access-control-max-age"


def is_preflight(request: Request) -> bool:
    """Whether a browser asks what it may send."""
    return (
        request.method == b"OPTIONS"
        and request.header(b"origin") is not None
        and request.header(b"access-control-request-method") is not None
    )


def preflight_headers(cors: Cors, request: Request) -> Headers:
    """The answer to a preflight: 200 without a body, and these; none of them for an origin not allowed."""
    headers = _origin(cors, request)
    if not headers:
        return []
    if cors.allow_methods:
        headers.append((_ALLOW + b"methods", _listed(cors.allow_methods)))
    if cors.allow_headers:
        headers.append((_ALLOW + b"headers", _listed(cors.allow_headers)))
    if cors.max_age is not None:
        headers.append((_MAX_AGE, str(cors.max_age).encode()))
    return headers


def with_cors(headers: Headers, cors: Cors, request: Request) -> Headers:
    """The headers of a function's response with the URL's CORS headers in the place of its own."""
    kept = [
        (name, value)
        for name, value in headers
        if not name.startswith(_ALLOW) and name not in (_EXPOSE, _MAX_AGE)
    ]
    own = _origin(cors, request)
    if own and cors.expose_headers:
        own.append((_EXPOSE, _listed(cors.expose_headers)))
    return kept + own


def _origin(cors: Cors, request: Request) -> Headers:
    origin = request.header(b"origin")
    allowed = cors.allow_origins or ()
    if origin is None:
        return []
    if "*" in allowed and not cors.allow_credentials:
        headers: Headers = [(_ALLOW + b"origin", b"*")]
    elif "*" in allowed or origin.lower() in [each.encode().lower() for each in allowed]:
        # With credentials a browser takes no wildcard; what depends on the origin must say so to caches.
        headers = [(_ALLOW + b"origin", origin), (b"vary", b"Origin")]
    else:
        return []
    if cors.allow_credentials:
        headers.append((_ALLOW + b"credentials", b"true"))
    return headers


def _listed(values: tuple[str, ...]) -> bytes:
    text = ",".join(values)
    return text.encode("ascii", "replace").replace(b"\r", b" ").replace(b"\n", b" ").replace(b"\0", b" ")
