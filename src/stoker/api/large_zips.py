"""Reads requests that carry an archive in base64 slice by slice: in one piece it would hold up everybody.

The archive's text is cut out of the JSON, a token of its kind put in its place, and the rest parsed as ever.
Only if the token comes out where the archive belongs was that the archive's text. Whatever looks
unusual is left to the ordinary way, which takes longer and says what is wrong.
"""

import asyncio
import base64
import binascii
import io
import re
import secrets
from collections.abc import Callable
from typing import Any, Final

import msgspec

LARGE_FROM_BYTES: Final = 1024 * 1024
"""Smaller bodies are read at once: 6 ms."""
SLICE_BYTES: Final = 256 * 1024
"""Of base64, decoded between two turns of the event loop; a multiple of four."""
AROUND_MAX_BYTES: Final = 64 * 1024
"""What may stand before the archive in the request, and behind it."""

FIELDS: Final = {
    "CreateFunction": ("code", "zip_file"),
    "UpdateFunctionCode": ("zip_file",),
    "PublishLayerVersion": ("content", "zip_file"),
}
"""Where the archive is in the record, by operation."""

_BEGINS: Final = re.compile(rb'"ZipFile"[ \t\r\n]{0,8}:[ \t\r\n]{0,8}"')
_TOKEN_BYTES: Final = 24

Parse = Callable[[bytes], msgspec.Struct]


async def read_in_slices(
    body: bytes | memoryview, fields: tuple[str, ...], parse: Parse
) -> msgspec.Struct | None:
    """The record of a large request; None when it has to be read the ordinary way.

    Raises what ``parse`` raises for the request without its archive.
    """
    place = _find(body)
    if place is None:
        return None
    token = secrets.token_bytes(_TOKEN_BYTES)
    start, end = place
    skeleton = b"".join((body[:start], base64.b64encode(token), body[end:]))
    record = parse(skeleton)
    if _value(record, fields) != token:
        return None
    content = await _decoded(body, start, end)
    return None if content is None else _replaced(record, fields, content)


def _find(body: bytes | memoryview) -> tuple[int, int] | None:
    """Where the archive's text begins and ends, if it is what most of the body is."""
    begins = _BEGINS.search(body, 0, AROUND_MAX_BYTES)
    if begins is None:
        return None
    tail = max(begins.end(), len(body) - AROUND_MAX_BYTES)
    behind = bytes(body[tail:]).find(b'"')
    return None if behind < 0 else (begins.end(), tail + behind)


async def _decoded(body: bytes | memoryview, start: int, end: int) -> bytes | None:
    """None: it is not plain base64."""
    content = io.BytesIO()
    for at in range(start, end, SLICE_BYTES):
        piece = body[at : min(at + SLICE_BYTES, end)]
        try:
            plain = binascii.a2b_base64(piece, strict_mode=True)
        except binascii.Error:
            return None
        if at + SLICE_BYTES < end and len(plain) != SLICE_BYTES // 4 * 3:
            return None  # it was padded in the middle
        content.write(plain)
        await asyncio.sleep(0)
    return content.getvalue()  # its buffer, not a copy


def _value(record: Any, fields: tuple[str, ...]) -> Any:
    for field in fields:
        record = getattr(record, field, None)
    return record


def _replaced(record: Any, fields: tuple[str, ...], content: bytes) -> Any:
    first, *rest = fields
    inner = _replaced(getattr(record, first), tuple(rest), content) if rest else content
    return msgspec.structs.replace(record, **{first: inner})
