"""What service and flattener say to each other: a message a datagram on a SOCK_SEQPACKET pair, fds alongside.

Sealed chunks lie in the slots of a memory file that both have. The flattener reads hostile input, so its
messages are small fixed records, decoded strictly, and the service copies a slot before it looks at it.
"""

import msgspec

from stoker.packaging.flatten.users import User

MESSAGE_MAX_BYTES = 16 * 1024
SLOTS = 32
"""Chunks on their way to the store."""
BATCH_CHUNKS = 8
WHY_MAX = 500


class Begin(msgspec.Struct, frozen=True, tag=True):
    """Start an image (two descriptors: the slots, a scratch file for one decompressed layer)."""

    salt: bytes
    block_bytes: int


class Layer(msgspec.Struct, frozen=True, tag=True):
    """The next layer (one descriptor: its blob)."""

    compression: str
    digest: str
    diff_id: str


class Finish(msgspec.Struct, frozen=True, tag=True):
    """There are no more layers; ``user`` is the configuration's."""

    user: str


class Taken(msgspec.Struct, frozen=True, tag=True):
    """The chunks in these slots are stored."""

    slots: list[int]


class Ready(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The flattener has confined itself and waits; ``missing`` names what the host does not offer."""

    missing: list[str]


class Read(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """So many more bytes of the layer's blob were read."""

    size_bytes: int


class Chunk(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A sealed chunk of the image in a slot."""

    number: int
    name: bytes
    key: bytes
    slot: int
    size_bytes: int


class Chunks(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Chunks to be stored."""

    chunks: list[Chunk]


class LayerDone(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """All chunks of the layer were sent and its blob is not needed any more."""


class Flattened(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """All chunks of the image were sent."""

    size_bytes: int
    files: int
    user: User | None


class Refused(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The image is not acceptable; ``kind`` as in LayerRefused."""

    kind: str
    why: str


class Broke(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The host, not the image, failed. ``number`` is the errno, if it has one."""

    why: str
    number: int | None = None


Request = Begin | Layer | Finish | Taken
Answer = Ready | Read | Chunks | LayerDone | Flattened | Refused | Broke
