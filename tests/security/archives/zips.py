"""Makes archives that lie: hostile names, types, sizes and layouts, byte by byte where the library refuses to."""

import io
import os
import stat
import struct
import warnings
import zipfile
import zlib


def member(name: str, mode: int = 0o644, *, kind: int = stat.S_IFREG) -> zipfile.ZipInfo:
    """An entry with a Unix mode."""
    info = zipfile.ZipInfo(name, (2024, 5, 6, 7, 8, 10))
    info.create_system = 3
    info.external_attr = (kind | mode) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def archive(*entries: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    """A zip of these entries, in order; duplicates stay duplicates."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
        warnings.simplefilter("ignore")
        for info, content in entries:
            opened.writestr(member(info) if isinstance(info, str) else info, content)
    return stream.getvalue()


def link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    """A symbolic link."""
    return member(name, 0o777, kind=stat.S_IFLNK), target.encode()


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    """Every ``old`` replaced by ``new`` of the same length (names in both headers)."""
    assert len(old) == len(new)
    assert old in content
    return content.replace(old, new)


def with_flag(content: bytes, flag: int) -> bytes:
    """A flag set in every header, local and central."""
    return _edited(content, local=6, central=8, change=lambda value: value | flag)


def with_method(content: bytes, method: int) -> bytes:
    """Another compression method in every header."""
    return _edited(content, local=8, central=10, change=lambda _: method)


def with_size(content: bytes, size: int) -> bytes:
    """Another uncompressed size in the central directory."""
    edited = bytearray(content)
    at = edited.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<I", edited, at + 24, size)
        at = edited.find(b"PK\x01\x02", at + 4)
    return bytes(edited)


def overlapping_bomb(copies: int, kernel_bytes: int = 2_000_000) -> bytes:
    """Many directory entries that all point at one compressed member (the simplest overlap)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    kernel = b"\0" * kernel_bytes
    squeezed = compressor.compress(kernel) + compressor.flush()
    crc = zlib.crc32(kernel)
    local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 33, crc, len(squeezed), kernel_bytes, 1, 0)
    body = local + b"a" + squeezed
    central = b"".join(
        struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, crc, len(squeezed), kernel_bytes,
            1, 0, 0, 0, 0, 0, 0,
        )
        + b"a"
        for _ in range(copies)
    )  # fmt: skip
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, copies, copies, len(central), len(body), 0)
    return body + central + end


def quoted_overlap_bomb(copies: int, kernel_bytes: int = 2_000_000) -> bytes:
    """Fifield's bomb: each member's data is the next local header, quoted, then the shared kernel."""
    kernel = b"\0" * kernel_bytes
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    squeezed = compressor.compress(kernel) + compressor.flush()
    data, crc, size = squeezed, zlib.crc32(kernel), kernel_bytes
    entries: list[tuple[bytes, bytes, int, int, int]] = []
    plain = kernel
    for number in range(copies):
        name = f"{number:04d}".encode()
        header = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 33, crc, len(data), size, 4, 0) + name
        entries.append((name, header, crc, len(data), size))
        quoted = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF) + header
        data = quoted + data
        plain = header + plain
        crc, size = zlib.crc32(plain), len(plain)
    body = b""
    offset = 0
    central = b""
    for name, header, member_crc, compressed, member_size in reversed(entries):
        central += (
            struct.pack(
                "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, member_crc, compressed, member_size,
                4, 0, 0, 0, 0, 0, offset,
            )
            + name
        )  # fmt: skip
        is_last = name == entries[0][0]
        body += header + (b"" if is_last else struct.pack("<BHH", 0, 34, 34 ^ 0xFFFF))
        offset = len(body)
    body += squeezed
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, copies, copies, len(central), len(body), 0)
    return body + central + end


def fingerprint(folder: str) -> dict[str, tuple[int, int]]:
    """Everything below a folder, links not followed: to see that nothing was written there."""
    found: dict[str, tuple[int, int]] = {}
    for parent, directories, files in os.walk(folder):
        for name in directories + files:
            status = os.lstat(os.path.join(parent, name))
            found[os.path.join(parent, name)] = (status.st_mode, status.st_size)
    return found


def _edited(content: bytes, *, local: int, central: int, change: "object") -> bytes:
    edited = bytearray(content)
    for magic, place in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        at = edited.find(magic)
        while at >= 0:
            (value,) = struct.unpack_from("<H", edited, at + place)
            struct.pack_into("<H", edited, at + place, change(value))  # type: ignore[operator]
            at = edited.find(magic, at + 4)
    return bytes(edited)
