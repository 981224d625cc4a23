"""Access profiles: which chunks of an image its starts read, in order. Pure; trusts nothing stored."""

import struct

from stoker.packaging.volumes.records import PROFILE_CHUNKS_MAX

_MAGIC = b"STOKPRO1"
_CHANGED_SHARE = 0.1
"""A profile that differs in less than this is not stored again."""


def encode_profile(indexes: tuple[int, ...]) -> bytes:
    """As it is stored: at most PROFILE_CHUNKS_MAX of them."""
    kept = indexes[:PROFILE_CHUNKS_MAX]
    return _MAGIC + struct.pack(f"<{len(kept)}I", *kept)


def decode_profile(content: bytes, chunks: int) -> tuple[int, ...]:
    """The indexes of a stored profile that the image of ``chunks`` chunks has, each once; none of a damaged
    one: a profile only saves time."""
    body = len(content) - len(_MAGIC)
    if not content.startswith(_MAGIC) or body % 4 or body > 4 * PROFILE_CHUNKS_MAX:
        return ()
    indexes = struct.unpack_from(f"<{body // 4}I", content, len(_MAGIC))
    return tuple(dict.fromkeys(index for index in indexes if index < chunks))


def is_news(stored: tuple[int, ...], touched: tuple[int, ...]) -> bool:
    """Whether a start read enough else to be worth storing."""
    if not touched:
        return False
    known, seen = set(stored), set(touched)
    return len(known ^ seen) > _CHANGED_SHARE * max(len(known), len(seen))
