"""What service and packer say to each other: one message a datagram on a SOCK_SEQPACKET pair, fds alongside.

The packer has read hostile input, so its answers are small fixed records, decoded strictly.
"""

import msgspec

MESSAGE_MAX_BYTES = 4096


class Hash(msgspec.Struct, frozen=True, tag=True):
    """Hash the archive (one descriptor)."""


class Unpack(msgspec.Struct, frozen=True, tag=True):
    """Check the archive and unpack it (two descriptors: archive, empty directory)."""

    limit_bytes: int


class Pack(msgspec.Struct, frozen=True, tag=True):
    """Check archives and write them as one image (descriptors: an empty file for it, archives in order)."""

    limit_bytes: int
    """Of each archive, unpacked."""


class Hashed(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Hexadecimal SHA-256 and size of the archive."""

    sha256: str
    size_bytes: int


class Unpacked(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Everything is in the directory."""

    unpacked_bytes: int
    members: int


class Imaged(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Everything is in the image."""

    unpacked_bytes: int
    image_bytes: int


class Refused(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The archive is not acceptable; ``kind`` as in ArchiveRefused."""

    kind: str
    why: str


class Broke(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The host, not the archive, failed. ``number`` is the errno, if it has one."""

    why: str
    number: int | None = None


class Ready(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The packer has confined itself and waits; ``missing`` names what the host does not offer."""

    missing: list[str]


Request = Hash | Unpack | Pack
Answer = Hashed | Unpacked | Imaged | Refused | Broke | Ready
