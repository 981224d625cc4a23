"""The canonical forms of SigV4: path, query and headers as both sides must spell them. Pure.

Follows "Create a signed AWS API request" of the IAM user guide, for services other than S3: the path is
normalised and its escapes are escaped once more.
"""

from functools import lru_cache
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from stoker.http.messages import Headers

PATH_CACHE_SIZE: Final = 4096

Fields = dict[bytes, bytes]
"""Header values by lower-case name; those sent more than once are joined by commas."""


def join_fields(headers: Headers) -> tuple[Fields, frozenset[bytes]]:
    """Headers by name, and the names that came more than once."""
    fields: Fields = dict(headers)
    if len(fields) == len(headers):
        return fields, frozenset()
    fields = {}
    repeated: set[bytes] = set()
    for name, value in headers:
        if name in fields:
            repeated.add(name)
            fields[name] += b"," + value
        else:
            fields[name] = value
    return fields, frozenset(repeated)


@lru_cache(maxsize=PATH_CACHE_SIZE)
def canonical_path(path: bytes) -> bytes:
    """``path`` (as on the wire) without dot segments and empty segments, every escape escaped again."""
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    tail = b"/" if kept and path.endswith(b"/") else b""
    return quote_from_bytes(b"/" + b"/".join(kept) + tail, safe="/~").encode()


def split_query(query: bytes) -> list[tuple[bytes, bytes]]:
    """Decoded pairs in the order sent. A plus sign is a plus sign, as SigV4 has it."""
    pairs: list[tuple[bytes, bytes]] = []
    for part in query.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            pairs.append((unquote_to_bytes(name), unquote_to_bytes(value)))
    return pairs


def canonical_query(pairs: list[tuple[bytes, bytes]], leave_out: bytes = b"") -> bytes:
    """Decoded ``pairs`` encoded the one way that is signed, sorted; without the parameter ``leave_out``."""
    encoded = sorted(
        (quote_from_bytes(name, safe="-_.~"), quote_from_bytes(value, safe="-_.~"))
        for name, value in pairs
        if name != leave_out
    )
    return "&".join([f"{name}={value}" for name, value in encoded]).encode()


def canonical_value(value: bytes) -> bytes:
    """A header value without outer white space, inner runs of it made one space."""
    if b"  " in value or b"\t" in value:
        return b" ".join(value.split())
    return value.strip(b" ")


def canonical_headers(names: tuple[bytes, ...], fields: Fields) -> bytes:
    """One line a header, in the order of ``names``, without a last line end."""
    block = b"\n".join([name + b":" + fields[name] for name in names])
    # Nearly always there is no white space to normalise, and one look at the whole is cheaper than many.
    if b"  " in block or b"\t" in block or b" \n" in block or b": " in block or block.endswith(b" "):
        return b"\n".join([name + b":" + canonical_value(fields[name]) for name in names])
    return block
