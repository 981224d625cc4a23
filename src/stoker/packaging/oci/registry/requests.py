"""One request to a registry: redirects followed with care, answers bounded, failures told apart. Blocking."""

import contextlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import urljoin

import msgspec
import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError, SSLError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Url, parse_url

from stoker.packaging.oci.registry.access import RegistrySettings, is_loopback
from stoker.packaging.oci.registry.connections import TIMEOUT, AddressRefused, Watch
from stoker.services.images import ImageRefused

REDIRECTS_MAX: Final = 5
LOCATION_MAX: Final = 8192
PASSING: Final = frozenset({429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DISCARD_MAX_BYTES = 64 * 1024
_PORTS = {"http": 80, "https": 443}

KNOWN_CODES: Final = frozenset(
    {
        "BLOB_UNKNOWN",
        "DENIED",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
    }
    | {"NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "TOOMANYREQUESTS", "UNAUTHORIZED", "UNSUPPORTED"}
)
"""Of the distribution specification. Nothing else that a registry says is repeated: it might be a secret."""


class PassingFailure(Exception):
    """It may go better in a moment; ``refused`` is what to say if it does not."""

    def __init__(self, refused: ImageRefused, after_s: float | None = None) -> None:
        super().__init__(str(refused))
        self.refused = refused
        self.after_s = after_s


class _Errors(msgspec.Struct):
    errors: list[dict[str, object]] = []


class Requests:
    """GET and HEAD, and the POST that token services want, over the pools."""

    def __init__(self, pools: urllib3.PoolManager, settings: RegistrySettings) -> None:
        self._pools = pools
        self._settings = settings

    def get(
        self,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        watch: Watch,
        *,
        method: str = "GET",
    ) -> BaseHTTPResponse:
        """The answer behind every redirect. ``authorization`` goes to the first address's own origin alone.

        Raises:
            PassingFailure, ImageRefused
        """
        origin = origin_of(parse_url(url))
        for _ in range(REDIRECTS_MAX + 1):
            own = authorization is not None and origin_of(parse_url(url)) == origin
            sent = {**headers, "Authorization": authorization} if own and authorization else dict(headers)
            response = self.once(method, url, sent, watch)
            if response.status not in _REDIRECTS:
                return response
            location = response.headers.get("location")
            discard(response)
            url = self._followed(url, location)
            watch.first_hop_done()
        raise ImageRefused("invalid", f"{host_of(url)}: it redirects in circles")

    def once(
        self, method: str, url: str, headers: Mapping[str, str], watch: Watch, body: bytes | None = None
    ) -> BaseHTTPResponse:
        """One exchange; the body is yet to be read. Raises PassingFailure, ImageRefused."""
        try:
            return self._pools.urlopen(
                method,
                url,
                body=body,
                headers={"Accept-Encoding": "identity", "User-Agent": "stoker", **headers},
                redirect=False,
                retries=False,
                timeout=TIMEOUT,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, OSError, AddressRefused, ValueError) as problem:
            raise failure(host_of(url), problem, watch) from None

    def check_scheme(self, scheme: str | None, host: str) -> None:
        """Raises ImageRefused for plain HTTP where that is not allowed."""
        if scheme == "https" or (scheme == "http" and self.speaks_plain_http(host)):
            return
        raise ImageRefused(
            "denied", f"{host}: plain HTTP is for this machine and for hosts in registry_plain_http"
        )

    def speaks_plain_http(self, host: str) -> bool:
        """Whether HOST[:PORT] may be asked without TLS."""
        return host in self._settings.plain_http or is_loopback(host)

    def _followed(self, url: str, location: str | None) -> str:
        host = host_of(url)
        if not location or len(location) > LOCATION_MAX:
            raise ImageRefused("invalid", f"{host}: it redirects to nowhere")
        try:
            target = parse_url(urljoin(url, location))
        except (ValueError, HTTPError):
            raise ImageRefused("invalid", f"{host}: it redirects to what is no address") from None
        if not target.host or target.auth:
            raise ImageRefused("invalid", f"{host}: it redirects to what is no address")
        self.check_scheme(target.scheme, host_of(target.url))
        return target._replace(fragment=None).url


def origin_of(url: Url) -> tuple[str | None, str | None, int | None]:
    """Scheme, host and port."""
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme or "")


def host_of(url: str) -> str:
    """HOST[:PORT] for messages."""
    return parse_url(url).netloc or "?"


def read_bounded(response: BaseHTTPResponse, limit_bytes: int, host: str, watch: Watch) -> bytes:
    """The whole body. Raises ImageRefused (``too_big``) beyond the limit, PassingFailure."""
    parts: list[bytes] = []
    size_bytes = 0
    try:
        while part := response.read1(min(64 * 1024, limit_bytes + 1)):
            parts.append(part)
            size_bytes += len(part)
            if size_bytes > limit_bytes:
                response.close()
                raise ImageRefused("too_big", f"{host}: it answers with more than {limit_bytes} bytes")
    except (HTTPError, OSError, ValueError) as problem:
        response.close()
        raise failure(host, problem, watch) from None
    response.release_conn()
    return b"".join(parts)


def discard(response: BaseHTTPResponse) -> None:
    """Be done with an answer: its connection is kept if little is left to read."""
    left_bytes = _DISCARD_MAX_BYTES
    with contextlib.suppress(HTTPError, OSError, ValueError):
        while left_bytes > 0 and (part := response.read1(left_bytes)):
            left_bytes -= len(part)
        if left_bytes > 0:
            response.release_conn()
            return
    response.close()


def refusal(response: BaseHTTPResponse, what: str, host: str, credentials: str, watch: Watch) -> Exception:
    """What an answer other than success means: ImageRefused, or PassingFailure."""
    status = response.status
    after_s = _retry_after_s(response.headers.get("retry-after"))
    said = f"HTTP {status}{_code(response, host, watch)}"
    if status in PASSING:
        return PassingFailure(ImageRefused("unreachable", f"{host}: {said} for {what}"), after_s)
    if status in (401, 403):
        return ImageRefused("denied", f"{host}: {said} for {what}, asked {credentials}")
    if status == 404:
        return ImageRefused("missing", f"{host}: there is no {what} ({said})")
    return ImageRefused("invalid", f"{host}: {said} for {what}")


def failure(host: str, problem: Exception, watch: Watch) -> Exception:
    """What an exchange that broke off means: ImageRefused, or PassingFailure."""
    if watch.was_cut:
        return ImageRefused("unreachable", f"{host}: given up")
    if watch.passed:
        return PassingFailure(ImageRefused("unreachable", f"{host}: it is too slow"))
    if isinstance(problem, AddressRefused):
        return ImageRefused("denied", f"{host}: {problem}")
    if isinstance(problem, NameResolutionError):
        return PassingFailure(ImageRefused("unreachable", f"{host}: there is no such host"))
    if isinstance(problem, SSLError):
        return ImageRefused("unreachable", f"{host}: no trusted TLS connection: {_innermost(problem)}")
    return PassingFailure(ImageRefused("unreachable", f"{host}: {_innermost(problem)}"))


def _innermost(problem: BaseException) -> str:
    """The cause without the addresses and objects that urllib3 wraps around it."""
    while (inner := problem.__cause__ or problem.__context__) is not None:
        problem = inner
    reason = getattr(problem, "verify_message", None) or getattr(problem, "strerror", None)
    text = str(reason or problem or type(problem).__name__)
    return "".join(character for character in text if character.isprintable())[:200]


def _code(response: BaseHTTPResponse, host: str, watch: Watch) -> str:
    try:
        answer = msgspec.json.decode(read_bounded(response, 16 * 1024, host, watch), type=_Errors)
    except (ImageRefused, PassingFailure, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    codes = [each.get("code") for each in answer.errors[:1]]
    return "".join(f" {code}" for code in codes if code in KNOWN_CODES)


def _retry_after_s(value: str | None) -> float | None:
    return (
        float(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 6 else None
    )
