"""How a registry is asked: over TLS or not, and with which Authorization header. Blocking, thread-safe.

Credentials go to their own host, and to the token service that this host names over TLS; nowhere else.
"""

import threading
import time
from typing import Final
from urllib.parse import urlencode

import msgspec
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from stoker.packaging.oci.references import Reference
from stoker.packaging.oci.registry.access import (
    Credentials,
    RegistrySettings,
    api_host,
    api_name,
    credentials_of,
)
from stoker.packaging.oci.registry.challenges import Challenge, parse_challenges
from stoker.packaging.oci.registry.connections import Watch
from stoker.packaging.oci.registry.requests import (
    PassingFailure,
    Requests,
    discard,
    host_of,
    origin_of,
    read_bounded,
    refusal,
)
from stoker.services.images import ImageRefused

TOKEN_ANSWER_MAX_BYTES: Final = 64 * 1024
TOKENS_MAX: Final = 256
TOKEN_LIFETIME_S: Final = 60.0
"""Of a token whose service does not say, as the token specification has it."""
TOKEN_LIFETIME_MAX_S: Final = 3600.0
TOKEN_MARGIN_S: Final = 10.0
ORIGINS_MAX: Final = 256
_REALM_MAX = 2048


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


class _Header(msgspec.Struct, frozen=True):
    value: str | None
    until_s: float


class Authority:
    """Remembers, by host and repository, what worked last."""

    def __init__(self, requests: Requests, settings: RegistrySettings) -> None:
        self._requests = requests
        self._settings = settings
        self._lock = threading.Lock()
        self._origins: dict[str, str] = {}
        self._headers: dict[tuple[str, str, Credentials | None], _Header] = {}

    def base(self, reference: Reference, watch: Watch) -> str:
        """``https://HOST/v2/NAME``. A host that may go without TLS is asked once which it speaks.

        Raises:
            PassingFailure, ImageRefused
        """
        host = api_host(reference.host)
        return f"{self._origin(host, watch)}/v2/{api_name(reference.host, reference.name)}"

    def header(self, reference: Reference) -> str | None:
        """The Authorization header to begin with; None for none."""
        known = self._headers.get(self._key(reference))
        if known is not None and known.until_s > time.monotonic():
            return known.value
        return None

    def answer(self, reference: Reference, base: str, offered: list[str], watch: Watch) -> str:
        """The Authorization header that answers a 401's challenges.

        Raises:
            PassingFailure, ImageRefused
        """
        key = self._key(reference)
        challenges = {challenge.scheme: challenge for challenge in reversed(parse_challenges(offered))}
        if "bearer" in challenges:
            header = self._token(reference, base, challenges["bearer"], key[2], watch)
        elif "basic" in challenges and key[2] is not None and key[2].basic is not None:
            header = _Header(key[2].basic, time.monotonic() + TOKEN_LIFETIME_MAX_S)
        else:
            raise ImageRefused(
                "denied", f"{reference.host}: it wants a login; asked {self.credentials(reference)}"
            )
        with self._lock:
            while len(self._headers) >= TOKENS_MAX:
                self._headers.pop(next(iter(self._headers)))
            self._headers[key] = header
        assert header.value is not None
        return header.value

    def forget(self, reference: Reference) -> None:
        """What worked works no more."""
        with self._lock:
            self._headers.pop(self._key(reference), None)

    def credentials(self, reference: Reference) -> str:
        """Whether credentials were used, for messages."""
        if credentials_of(self._settings, reference.host) is None:
            where = self._settings.config_file
            return (
                f"without credentials ({where} has none)"
                if where
                else "without credentials (see registry_config)"
            )
        return f"with the credentials in {self._settings.config_file}"

    def _key(self, reference: Reference) -> tuple[str, str, Credentials | None]:
        return reference.host, reference.name, credentials_of(self._settings, reference.host)

    def _origin(self, host: str, watch: Watch) -> str:
        if not self._requests.speaks_plain_http(host):
            return f"https://{host}"
        if host in self._settings.plain_http:
            return f"http://{host}"
        known = self._origins.get(host) or self._probed(host, watch)
        with self._lock:
            while len(self._origins) >= ORIGINS_MAX:
                self._origins.pop(next(iter(self._origins)))
            self._origins[host] = known
        return known

    def _probed(self, host: str, watch: Watch) -> str:
        """This machine's own registries: TLS if they speak it, plain HTTP otherwise."""
        try:
            discard(self._requests.once("GET", f"https://{host}/v2/", {}, watch))
        except ImageRefused as problem:
            # A certificate that is not trusted is no reason to go without.
            if "certificate" in str(problem):
                raise
        except PassingFailure:
            pass
        else:
            return f"https://{host}"
        discard(self._requests.once("GET", f"http://{host}/v2/", {}, watch))
        return f"http://{host}"

    def _token(
        self,
        reference: Reference,
        base: str,
        challenge: Challenge,
        credentials: Credentials | None,
        watch: Watch,
    ) -> _Header:
        now_s = time.monotonic()
        if credentials is not None and credentials.access_token:
            return _Header(f"Bearer {_sendable(credentials.access_token)}", now_s + TOKEN_LIFETIME_MAX_S)
        realm = self._checked_realm(reference, base, challenge)
        query = {"scope": f"repository:{api_name(reference.host, reference.name)}:pull"}
        if service := challenge.parameters.get("service"):
            query["service"] = service
        watch.first_hop_done()
        if credentials is not None and credentials.refresh_token:
            body = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.refresh_token,
                "client_id": "stoker",
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            response = self._requests.once(
                "POST", realm, headers, watch, urlencode({**query, **body}).encode()
            )
        else:
            basic = credentials.basic if credentials is not None else None
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
            response = self._requests.once("GET", url, {"Authorization": basic} if basic else {}, watch)
        host = host_of(realm)
        if response.status != 200:
            raise refusal(
                response, f"a token for {reference.repository}", host, self.credentials(reference), watch
            )
        return _bearer(read_bounded(response, TOKEN_ANSWER_MAX_BYTES, host, watch), host, now_s)

    def _checked_realm(self, reference: Reference, base: str, challenge: Challenge) -> str:
        """A token service over TLS, or on the very origin of a registry that speaks none."""
        realm = challenge.parameters.get("realm", "")
        try:
            url = parse_url(realm) if len(realm) <= _REALM_MAX else None
        except (ValueError, HTTPError):
            url = None
        if url is None or not url.host or url.auth or url.scheme not in ("http", "https"):
            raise ImageRefused("invalid", f"{reference.host}: it names no token service")
        if url.scheme != "https" and origin_of(url) != origin_of(parse_url(base)):
            raise ImageRefused(
                "denied", f"{reference.host}: its token service {host_of(url.url)} is not asked over TLS"
            )
        return url._replace(fragment=None).url


def _bearer(content: bytes, host: str, now_s: float) -> _Header:
    try:
        answer = msgspec.json.decode(content, type=_Token)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ImageRefused("invalid", f"{host}: the token service's answer is not understood") from None
    token = answer.token or answer.access_token
    if not token:
        raise ImageRefused("denied", f"{host}: the token service gave no token")
    lifetime_s = min(max(answer.expires_in or 0, TOKEN_LIFETIME_S), TOKEN_LIFETIME_MAX_S)
    return _Header(f"Bearer {_sendable(token)}", now_s + lifetime_s - TOKEN_MARGIN_S)


def _sendable(token: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ImageRefused("invalid", "a token that no header can hold")
    return token
