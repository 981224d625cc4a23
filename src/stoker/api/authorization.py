"""What a request claims about its signer: the Authorization header or the presigned query, parsed.

Knows neither keys nor clocks; ``sigv4`` believes nothing here before the signature was verified.
"""

import re
from functools import lru_cache
from typing import Final

import msgspec

from stoker.api.canonical import Fields, canonical_query, join_fields, split_query
from stoker.core.errors import ServiceError
from stoker.http.messages import Request

EXPIRES_MAX_S: Final = 7 * 24 * 3600
SIGNED_HEADERS_CACHE_SIZE: Final = 512

_ALGORITHM: Final = b"AWS4-HMAC-SHA256"
_AUTHORIZATION: Final = re.compile(
    rb"AWS4-HMAC-SHA256 Credential=([^\s/,]+)/([0-9]{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request, ?"
    rb"SignedHeaders=([^\s,]+), ?Signature=([0-9a-f]{64})"
)
_SCOPE: Final = re.compile(rb"([^\s/,]+)/([^/]*)/([^/]*)/([^/]*)/([^/]*)")
_SINGLE: Final = frozenset(
    (b"authorization", b"host", b"x-amz-date", b"date", b"x-amz-security-token", b"x-amz-content-sha256")
)
# Clients add these after signing or cannot sign them; none of them means anything here.
_UNSIGNED_ALLOWED: Final = frozenset((b"x-amz-user-agent", b"x-amz-content-sha256", b"x-amz-date"))
_UNSIGNED_TOKEN: Final = b"x-amz-security-token"


class Claim(msgspec.Struct, eq=False):
    """Who the request says signed it, and what was signed apart from the body."""

    access_key_id: str
    date: bytes
    region: bytes
    service: bytes
    signed_headers: bytes
    signature: bytes
    timestamp: bytes
    path: bytes
    query: bytes
    """Canonical; the path is as on the wire."""
    fields: Fields
    session_token: str | None = None
    payload_hash: bytes | None = None
    """What x-amz-content-sha256 says; None when the body's own hash was signed."""
    expires_s: int | None = None
    """Set for the presigned form."""


def incomplete(message: str) -> ServiceError:
    """403 IncompleteSignatureException."""
    return ServiceError("IncompleteSignatureException", message)


def invalid_signature(message: str) -> ServiceError:
    """403 InvalidSignatureException."""
    return ServiceError("InvalidSignatureException", message)


def read_claim(request: Request) -> Claim:
    """Parse either form.

    Raises:
        ServiceError: MissingAuthenticationTokenException, IncompleteSignatureException or
            InvalidSignatureException, worded as AWS's front end words them where its words are known.
    """
    fields, repeated = join_fields(request.headers)
    if repeated and not repeated.isdisjoint(_SINGLE):
        names = ", ".join(sorted(name.decode("latin-1") for name in repeated & _SINGLE))
        raise incomplete(f"Headers must not be sent more than once: {names}")
    authorization = fields.get(b"authorization")
    path, query = split_target(request)
    presigned = bool(query) and (b"X-Amz-Signature=" in query or b"X-Amz-Algorithm=" in query)
    if authorization is None:
        if presigned:
            return _read_presigned(fields, path, query)
        raise ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token")
    if presigned:
        raise incomplete(
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter or the "
            "Authorization header should be specified"
        )
    return _read_header(fields, path, query, authorization)


def split_target(request: Request) -> tuple[bytes, bytes]:
    """Path and query as on the wire."""
    if request.target.startswith(b"/"):
        path, _, query = request.target.partition(b"?")
        return path, query
    return request.path, request.query


def _read_header(fields: Fields, path: bytes, query: bytes, authorization: bytes) -> Claim:
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None:
        key, date, region, service, signed, signature = _read_loosely(authorization)
    else:
        key, date, region, service, signed, signature = match.groups()
    timestamp = fields.get(b"x-amz-date") or fields.get(b"date")
    if timestamp is None:
        raise incomplete(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
        )
    token = fields.get(b"x-amz-security-token")
    claim = Claim(
        key.decode("latin-1"),
        date,
        region,
        service,
        signed,
        signature,
        timestamp,
        path,
        canonical_query(split_query(query)) if query else b"",
        fields,
        token.decode("latin-1") if token is not None else None,
        fields.get(b"x-amz-content-sha256"),
    )
    _check_signed_headers(claim)
    return claim


def _read_loosely(authorization: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes]:
    """Parameters in another order or with other white space; or the error that says what is wrong."""
    algorithm, _, rest = authorization.strip().partition(b" ")
    if algorithm != _ALGORITHM:
        raise ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token")
    parameters: dict[bytes, bytes] = {}
    for part in rest.split(b","):
        name, separator, value = part.strip().partition(b"=")
        if not separator or name in parameters:
            raise incomplete("Authorization header is not a list of distinct key=value pairs.")
        parameters[name] = value
    missing = [n for n in (b"Credential", b"Signature", b"SignedHeaders") if not parameters.get(n)]
    if missing:
        raise incomplete(
            " ".join(f"Authorization header requires '{name.decode()}' parameter." for name in missing)
        )
    scope = _read_scope(parameters[b"Credential"])
    return (*scope, parameters[b"SignedHeaders"], parameters[b"Signature"])


def _read_scope(credential: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    match = _SCOPE.fullmatch(credential)
    if match is None:
        raise incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term"
        )
    key, date, region, service, terminator = match.groups()
    if terminator != b"aws4_request":
        raise invalid_signature(
            f"Credential should be scoped with a valid terminator: 'aws4_request', "
            f"not '{terminator.decode('latin-1')}'."
        )
    return key, date, region, service


def _read_presigned(fields: Fields, path: bytes, query: bytes) -> Claim:
    pairs = split_query(query)
    parameters = _presigned_parameters(pairs)
    key, date, region, service = _read_scope(parameters[b"X-Amz-Credential"])
    token = parameters.get(b"X-Amz-Security-Token")
    claim = Claim(
        key.decode("latin-1"),
        date,
        region,
        service,
        parameters[b"X-Amz-SignedHeaders"],
        parameters[b"X-Amz-Signature"],
        parameters[b"X-Amz-Date"],
        path,
        canonical_query(pairs, leave_out=b"X-Amz-Signature"),
        fields,
        token.decode("latin-1") if token is not None else None,
        parameters.get(b"X-Amz-Content-Sha256") or fields.get(b"x-amz-content-sha256"),
        _read_expires(parameters[b"X-Amz-Expires"]),
    )
    _check_signed_headers(claim)
    return claim


_REQUIRED_PARAMETERS: Final = (
    b"X-Amz-Algorithm",
    b"X-Amz-Credential",
    b"X-Amz-Date",
    b"X-Amz-Expires",
    b"X-Amz-Signature",
    b"X-Amz-SignedHeaders",
)


def _presigned_parameters(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    parameters: dict[bytes, bytes] = {}
    for name, value in pairs:
        if name.startswith(b"X-Amz-"):
            if name in parameters:
                raise incomplete(f"AWS query-string parameter '{name.decode('latin-1')}' is given twice.")
            parameters[name] = value
    missing = [name for name in _REQUIRED_PARAMETERS if not parameters.get(name)]
    if missing:
        raise incomplete(
            " ".join(f"AWS query-string parameters must include '{name.decode()}'." for name in missing)
        )
    if parameters[b"X-Amz-Algorithm"] != _ALGORITHM:
        raise incomplete("Unsupported AWS 'algorithm': only AWS4-HMAC-SHA256 is supported.")
    return parameters


def _read_expires(text: bytes) -> int:
    if not text.isdigit() or len(text) > 10:
        raise incomplete("X-Amz-Expires should be a number of seconds.")
    expires_s = int(text)
    if expires_s > EXPIRES_MAX_S:
        raise incomplete(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be "
            f"less than {EXPIRES_MAX_S} seconds"
        )
    return expires_s


@lru_cache(maxsize=SIGNED_HEADERS_CACHE_SIZE)
def signed_names(signed_headers: bytes) -> tuple[bytes, ...]:
    """The names of a SignedHeaders list, which are lower-case, sorted, distinct and include the host."""
    names = tuple(signed_headers.split(b";"))
    if signed_headers != signed_headers.lower() or list(names) != sorted(set(names)) or b"" in names:
        raise incomplete("SignedHeaders must be lower-case names, sorted and separated by ';'.")
    if b"host" not in names:
        raise invalid_signature("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    return names


def _check_signed_headers(claim: Claim) -> None:
    """Every x-amz- header is signed, so that none can be added or changed on the way."""
    fields = claim.fields
    names = signed_names(claim.signed_headers)
    for name in names:
        if name not in fields:
            raise invalid_signature(f"Signed header '{name.decode('latin-1')}' is not in the request.")
    for name in fields:
        if name.startswith(b"x-amz-") and name not in names and name not in _UNSIGNED_ALLOWED:
            # The token of the presigned form is signed in the query, that of the header form may be left out.
            if name == _UNSIGNED_TOKEN and claim.expires_s is None:
                continue
            raise invalid_signature(
                f"There were headers present in the request which were not signed: {name.decode('latin-1')}"
            )
