"""pax extended headers: ``LENGTH KEY=VALUE`` lines. Pure."""

from stoker.packaging.flatten.limits import invalid

_RECORDS_MAX = 4096
_LENGTH_DIGITS_MAX = 8


def parse_pax(content: bytes) -> dict[str, bytes]:
    """The records, the last of a key wins. GNU's sparse maps come as repeated keys: commas join them.

    Raises:
        LayerRefused: malformed, or too many of them.
    """
    found: dict[str, bytes] = {}
    segments: list[bytes] = []
    position = 0
    for _ in range(_RECORDS_MAX):
        if position >= len(content) or content[position] == 0:
            break
        position, key, value = _record(content, position)
        if key in ("GNU.sparse.offset", "GNU.sparse.numbytes"):
            segments.append(value)
        found[key] = value
    else:
        raise invalid(f"over {_RECORDS_MAX} records in one extended header")
    if segments:
        found["GNU.sparse.map"] = b",".join(segments)
    return found


def _record(content: bytes, position: int) -> tuple[int, str, bytes]:
    space = content.find(b" ", position, position + _LENGTH_DIGITS_MAX + 1)
    digits = content[position:space] if space > 0 else b""
    if not digits.isdigit():
        raise invalid("an extended header without a length")
    end = position + int(digits)
    if not space < end <= len(content) or content[end - 1] != 0x0A:
        raise invalid("an extended header's length is wrong")
    key, equals, value = content[space + 1 : end - 1].partition(b"=")
    if not key or not equals:
        raise invalid("an extended header without a key")
    if b"\0" in value and not key.startswith(b"SCHILY.xattr."):
        raise invalid(f"a zero in {key[:60]!r}")
    return end, key.decode("utf-8", "replace"), value
