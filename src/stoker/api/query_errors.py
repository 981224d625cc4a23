"""Errors of the query protocol: codes as IAM and STS spell them, as XML. Pure."""

from typing import Final
from xml.sax.saxutils import escape

from stoker.api.model import Service
from stoker.core.errors import ServiceError
from stoker.http.messages import Headers

# What the parts that all services share raise, in the words of these two.
_SPELLED: Final = {
    "AccessDeniedException": "AccessDenied",
    "IncompleteSignatureException": "IncompleteSignature",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
    "UnrecognizedClientException": "InvalidClientTokenId",
    "NotImplementedException": "NotImplemented",
    "RequestEntityTooLargeException": "RequestEntityTooLarge",
    "SerializationException": "MalformedInput",
    "ServiceException": "InternalFailure",
    "ServiceUnavailableException": "ServiceUnavailable",
    "ValidationException": "ValidationError",
}
_STATUSES: Final = {
    "AccessDenied": 403,
    "InvalidClientTokenId": 403,
    "MissingAuthenticationToken": 403,
    "SignatureDoesNotMatch": 403,
    "RequestEntityTooLarge": 413,
    "InternalFailure": 500,
    "NotImplemented": 501,
    "ServiceUnavailable": 503,
}


def render_xml(error: ServiceError, service: Service, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the answer."""
    code = _SPELLED.get(error.code, error.code)
    shape = service.errors.get(code)
    status = shape.status if shape else _STATUSES.get(code, 400)
    kind = "Receiver" if status >= 500 else "Sender"
    text = (
        f'<ErrorResponse xmlns="{service.namespace}"><Error><Type>{kind}</Type><Code>{escape(code)}</Code>'
        f"<Message>{xml_text(error.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    headers: Headers = [(b"x-amzn-requestid", request_id.encode()), (b"content-type", b"text/xml")]
    return status, headers, text.encode()


def xml_text(text: str) -> str:
    """Text as XML holds it; what XML 1.0 has no way to write becomes a question mark."""
    writable = "".join(letter if _is_writable(letter) else "?" for letter in text)
    return escape(writable)


def _is_writable(letter: str) -> bool:
    code = ord(letter)
    return code in (9, 10, 13) or 32 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code > 0xFFFF
