"""Verifies AWS Signature Version 4, header and presigned form. Secrets are used here and go nowhere.

Works in two steps, so that a large body is read only for a caller whose key, scope and date are good:
``open`` checks all that the head says, ``settle`` the signature once the body's hash is known.
"""

import calendar
import hashlib
import hmac
import re
import time
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

import msgspec

from stoker.api.authorization import Claim, incomplete, invalid_signature, read_claim, signed_names
from stoker.api.canonical import Fields, canonical_headers, canonical_path
from stoker.core.clock import Clock
from stoker.core.errors import ServiceError
from stoker.http.messages import Request
from stoker.services.credentials import Credential, Credentials

CLOCK_SKEW_S: Final = 300
SIGNING_KEY_CACHE_SIZE: Final = 1024
TIMESTAMP_CACHE_SIZE: Final = 1024

UNSIGNED_PAYLOAD: Final = b"UNSIGNED-PAYLOAD"
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest().encode()

_REGION: Final = re.compile(rb"[a-z]{2,8}(?:-[a-z]+){1,3}-[0-9]{1,2}")
_HEX_HASH: Final = re.compile(rb"[0-9a-f]{64}")
_MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
    "Access Key and signing method. Consult the service documentation for details."
)


class Caller(msgspec.Struct, eq=False):
    """Whose signature was good, the region the request is served in, and its headers by name."""

    credential: Credential
    region: str
    fields: Fields


class OpenClaim(msgspec.Struct, eq=False):
    """A claim whose key, scope and date are good; its signature is yet to be checked."""

    claim: Claim
    credential: Credential
    scope: bytes
    timestamp: bytes


@lru_cache(maxsize=SIGNING_KEY_CACHE_SIZE)
def signing_key(secret: str, date: bytes, region: bytes, service: bytes) -> bytes:
    """The key derived for a day, region and service; kept, because four HMACs cost as much as the rest."""
    key = b"AWS4" + secret.encode()
    for part in (date, region, service, b"aws4_request"):
        key = hmac.digest(key, part, "sha256")
    return key


@lru_cache(maxsize=TIMESTAMP_CACHE_SIZE)
def read_timestamp(text: bytes) -> tuple[float, bytes]:
    """Seconds since the epoch and the ISO 8601 basic form that is signed; ServiceError when it is no date."""
    try:
        if len(text) == 16 and text.endswith(b"Z"):
            return float(calendar.timegm(time.strptime(text.decode(), "%Y%m%dT%H%M%SZ"))), text
        moment = parsedate_to_datetime(text.decode())
        return moment.timestamp(), time.strftime("%Y%m%dT%H%M%SZ", moment.utctimetuple()).encode()
    except (ValueError, TypeError, OverflowError):
        raise incomplete("Date must be in ISO-8601 'basic format', e.g. 20060102T150405Z.") from None


def hash_body(body: bytes) -> bytes:
    """SHA-256 in hex."""
    return hashlib.sha256(body).hexdigest().encode() if body else EMPTY_SHA256


class Verifier:
    """Checks requests against ``credentials`` and ``clock``."""

    def __init__(self, credentials: Credentials, clock: Clock) -> None:
        self._credentials = credentials
        self._clock = clock

    def open(self, request: Request, service: bytes) -> OpenClaim:
        """Check everything but the signature.

        Raises:
            ServiceError: one of the 403s of AWS's front end.
        """
        claim = read_claim(request)
        if claim.service != service:
            raise invalid_signature(f"Credential should be scoped to correct service: '{service.decode()}'. ")
        if _REGION.fullmatch(claim.region) is None:
            raise invalid_signature(
                f"Credential should be scoped to a valid region, not '{claim.region.decode('latin-1')}'. "
            )
        _check_payload_hash(claim.payload_hash)
        timestamp = self._check_date(claim)
        credential = self._credentials.lookup(claim.access_key_id, claim.session_token)
        if credential is None:
            raise ServiceError(
                "UnrecognizedClientException", "The security token included in the request is invalid."
            )
        scope = b"%b/%b/%b/aws4_request" % (claim.date, claim.region, claim.service)
        return OpenClaim(claim, credential, scope, timestamp)

    def settle(self, opened: OpenClaim, request: Request, body_sha256: bytes) -> Caller:
        """Check the signature; ``body_sha256`` is the hash of the body in hex (anything when unsigned).

        Raises:
            ServiceError: InvalidSignatureException.
        """
        claim = opened.claim
        payload_hash = claim.payload_hash
        if payload_hash is None:
            payload_hash = body_sha256
        elif payload_hash not in (UNSIGNED_PAYLOAD, body_sha256):
            raise invalid_signature(
                "The provided 'x-amz-content-sha256' header does not match what was computed."
            )
        expected = _signature(opened, request, payload_hash)
        if not hmac.compare_digest(expected, claim.signature):
            raise invalid_signature(_MISMATCH)
        return Caller(opened.credential, claim.region.decode(), claim.fields)

    def _check_date(self, claim: Claim) -> bytes:
        signed_s, timestamp = read_timestamp(claim.timestamp)
        if timestamp[:8] != claim.date:
            raise invalid_signature(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
                f"'{claim.date.decode('latin-1')}' != '{timestamp[:8].decode()}', "
                f"from '{timestamp.decode()}'."
            )
        now_s = self._clock.now_s()
        valid_s = CLOCK_SKEW_S if claim.expires_s is None else claim.expires_s
        if now_s - signed_s > valid_s:
            raise invalid_signature(
                f"Signature expired: {timestamp.decode()} is now earlier than {_iso(now_s - valid_s)} "
                f"({_iso(now_s)} - {_span(valid_s)})"
            )
        if signed_s - now_s > CLOCK_SKEW_S:
            raise invalid_signature(
                f"Signature not yet current: {timestamp.decode()} is still later than "
                f"{_iso(now_s + CLOCK_SKEW_S)} ({_iso(now_s)} + {_span(CLOCK_SKEW_S)})"
            )
        return timestamp


def _signature(opened: OpenClaim, request: Request, payload_hash: bytes) -> bytes:
    claim = opened.claim
    signed = claim.signed_headers
    canonical = b"%b\n%b\n%b\n%b\n\n%b\n%b" % (
        request.method,
        canonical_path(claim.path),
        claim.query,
        canonical_headers(signed_names(signed), claim.fields),
        signed,
        payload_hash,
    )
    to_sign = b"AWS4-HMAC-SHA256\n%b\n%b\n%b" % (
        opened.timestamp,
        opened.scope,
        hashlib.sha256(canonical).hexdigest().encode(),
    )
    key = signing_key(opened.credential.secret, claim.date, claim.region, claim.service)
    return hmac.digest(key, to_sign, "sha256").hex().encode()


def _check_payload_hash(payload_hash: bytes | None) -> None:
    if payload_hash is None or payload_hash == UNSIGNED_PAYLOAD or _HEX_HASH.fullmatch(payload_hash):
        return
    raise invalid_signature(
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD or a valid sha256 value; streamed signatures are not "
        "supported."
    )


def _iso(seconds: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def _span(seconds: int) -> str:
    return f"{seconds // 60} min." if seconds % 60 == 0 else f"{seconds} sec."
