"""From an HTTP request to a function URL to the event: payload format 2.0. Pure.

After "Invoking Lambda function URLs" of the developer guide and answers of AWS; members that do not apply are
left out, as AWS leaves them out.
"""

import base64
import time
from typing import Any, Final
from urllib.parse import unquote_plus

import msgspec

from stoker.api.canonical import join_fields
from stoker.api.url_addresses import UrlAddress
from stoker.http.messages import Request
from stoker.services.context import RequestContext

STAGE: Final = "$default"
ANONYMOUS: Final = "anonymous"

HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
_CREDENTIALS: Final = frozenset((b"authorization", b"x-amz-security-token"))
_SIGNING: Final = frozenset(
    b"X-Amz-" + name
    for name in (
        b"Algorithm",
        b"Content-Sha256",
        b"Credential",
        b"Date",
        b"Expires",
        b"Security-Token",
        b"Signature",
        b"SignedHeaders",
    )
)
_TEXT_TYPES: Final = ("text", "json", "xml", "javascript")

_encode = msgspec.json.Encoder().encode


class Signer(msgspec.Struct, frozen=True):
    """Who signed a request to a URL with AWS_IAM."""

    context: RequestContext
    user_id: str


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """What the event says beside the request itself."""

    address: UrlAddress
    account: str
    """The function's."""
    request_id: str
    trace_id: str
    now_s: float
    signer: Signer | None = None


def url_event(request: Request, query: bytes, body: bytes | memoryview, arrival: Arrival) -> bytes:
    """The event as JSON."""
    path = arrival.address.path.decode("latin-1")
    if arrival.signer is not None:
        query = without_signature(query)
    raw_query = query.decode("latin-1")
    headers = event_headers(request, arrival)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": STAGE,
        "rawPath": path,
        "rawQueryString": raw_query,
    }
    cookies = split_cookies(headers.get("cookie", ""))
    if cookies:
        event["cookies"] = cookies
    event["headers"] = headers
    if raw_query:
        event["queryStringParameters"] = query_parameters(raw_query)
    event["requestContext"] = _context(request, path, headers.get("user-agent", ""), arrival)
    text: str | None = None
    if body:
        text = text_of(bytes(body), headers.get("content-type", ""))
        event["body"] = base64.b64encode(body).decode() if text is None else text
    event["isBase64Encoded"] = bool(body) and text is None
    return _encode(event)


def event_headers(request: Request, arrival: Arrival) -> dict[str, str]:
    """Headers by lower-case name, repeated ones joined by commas, with those that AWS adds.

    A signer's credentials stay out: they were for Lambda, not for the function.
    """
    fields, _ = join_fields(request.headers)
    dropped = HOP_BY_HOP if arrival.signer is None else HOP_BY_HOP | _CREDENTIALS
    headers = {name.decode("latin-1"): _text(value) for name, value in fields.items() if name not in dropped}
    came_through = headers.get("x-forwarded-for")
    source_ip = address_of(request.peer)
    headers["x-forwarded-for"] = f"{came_through}, {source_ip}" if came_through else source_ip
    headers["x-forwarded-proto"] = "https" if request.secure else "http"
    headers["x-forwarded-port"] = _port(fields.get(b"host", b""), secure=request.secure)
    headers["x-amzn-trace-id"] = arrival.trace_id
    return headers


def without_signature(query: bytes) -> bytes:
    """The query of a presigned request without what signs it."""
    return b"&".join(part for part in query.split(b"&") if part.partition(b"=")[0] not in _SIGNING)


def split_cookies(header: str) -> list[str]:
    """The cookies of a Cookie header, one each."""
    return [cookie for part in header.split(";") if (cookie := part.strip())]


def query_parameters(raw_query: str) -> dict[str, str]:
    """Parameters by name, decoded; those given more than once joined by commas."""
    parameters: dict[str, str] = {}
    for part in raw_query.split("&"):
        if not part:
            continue
        name, _, value = part.partition("=")
        name, value = unquote_plus(name), unquote_plus(value)
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    return parameters


def text_of(body: bytes, content_type: str) -> str | None:
    """The body where its type is a text's and it is one; None for what goes as base64."""
    kind = content_type.partition(";")[0].lower()
    if not any(part in kind for part in _TEXT_TYPES):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def address_of(peer: str) -> str:
    """The address of a peer (``HOST:PORT``, ``[HOST]:PORT`` or without a port)."""
    if peer.startswith("["):
        return peer[1:].partition("]")[0]
    return peer.partition(":")[0] if peer.count(":") == 1 else peer


def _context(request: Request, path: str, user_agent: str, arrival: Arrival) -> dict[str, Any]:
    address, signer = arrival.address, arrival.signer
    context: dict[str, Any] = {
        "accountId": ANONYMOUS if signer is None else arrival.account,
        "apiId": address.url_id,
    }
    if signer is not None:
        context["authentication"] = None
        context["authorizer"] = {"iam": _iam(signer)}
    context |= {
        "domainName": address.domain_name,
        "domainPrefix": address.url_id,
        "http": {
            "method": request.method.decode("latin-1"),
            "path": path,
            "protocol": "HTTP/1.1",
            "sourceIp": address_of(request.peer),
            "userAgent": user_agent,
        },
        "requestId": arrival.request_id,
        "routeKey": STAGE,
        "stage": STAGE,
        "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(arrival.now_s)),
        "timeEpoch": int(arrival.now_s * 1000),
    }
    return context


def _iam(signer: Signer) -> dict[str, str | None]:
    return {
        "accessKey": signer.context.access_key_id,
        "accountId": signer.context.account,
        "callerId": signer.user_id,
        "cognitoIdentity": None,
        "principalOrgId": None,
        "userArn": signer.context.principal_arn,
        "userId": signer.user_id,
    }


def _port(host: bytes, *, secure: bool) -> str:
    _, colon, port = host.rpartition(b":")
    if colon and port.isdigit():
        return port.decode()
    return "443" if secure else "80"


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
