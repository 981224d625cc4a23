"""The client context: Base64 from the caller, JSON for the function. Pure."""

import base64

import msgspec

from stoker.core.errors import ServiceError


def decode_client_context(encoded: str) -> str:
    """The JSON text in a client context.

    Raises:
        ServiceError: InvalidRequestContentException, worded as AWS words it.
    """
    try:
        text = base64.b64decode(encoded, validate=True).decode()
        msgspec.json.decode(text, type=dict[str, object])
    except (ValueError, msgspec.DecodeError) as error:
        raise ServiceError(
            "InvalidRequestContentException",
            "Client context must be a valid Base64-encoded JSON object.",
            fields={"Type": "User"},
        ) from error
    return text
