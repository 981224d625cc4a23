"""Takes the ELF kernel out of a compressed one (bzImage). Pure.

Micro-VMs enter the ELF file directly: unpacking inside costs them more than all the rest of their boot.
"""

import gzip
import lzma
import struct
import zlib

import zstandard

from stoker.core.errors import StokerError

KERNEL_BYTES_MAX = 256 * 1024 * 1024
_ELF = b"\x7fELF"
_LZ4_LEGACY = b"\x02!L\x18"


class KernelUnusable(StokerError):
    """This is no kernel for a micro-VM; the message says why."""


def vmlinux_of(kernel: bytes) -> bytes:
    """The ELF file of a bzImage, or of what is one already.

    Raises:
        KernelUnusable
    """
    if kernel[:4] == _ELF:
        return kernel
    if kernel[0x202:0x206] != b"HdrS":
        raise KernelUnusable("neither an ELF kernel (vmlinux) nor a bzImage")
    set_up_sectors = kernel[0x1F1] or 4
    offset, length = struct.unpack_from("<II", kernel, 0x248)
    start = (set_up_sectors + 1) * 512 + offset
    payload = kernel[start : start + length]
    try:
        unpacked = _unpacked(payload)
    except (lzma.LZMAError, zstandard.ZstdError, zlib.error, OSError, EOFError, IndexError) as problem:
        raise KernelUnusable(f"the kernel cannot be unpacked: {problem}") from problem
    if unpacked[:4] != _ELF:
        raise KernelUnusable("what the kernel was packed from is no ELF file")
    return unpacked


def _unpacked(payload: bytes) -> bytes:
    if payload.startswith(_LZ4_LEGACY):
        return _lz4_legacy(payload[:-4])  # the kernel's build appends the unpacked size
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload[:-4])
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload, KERNEL_BYTES_MAX)
    if payload.startswith(b"(\xb5/\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
    raise KernelUnusable("the kernel is not packed by gzip, xz, zstd or lz4")


def _lz4_legacy(data: bytes) -> bytes:
    unpacked = bytearray()
    at = 4
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        at += 4
        _lz4_block(data[at : at + size], unpacked)
        at += size
    return bytes(unpacked)


def _lz4_block(block: bytes, unpacked: bytearray) -> None:
    """Append one block. A match reaches back into what is there of the same block only."""
    at, end, begin = 0, len(block), len(unpacked)
    while at < end:
        token = block[at]
        at += 1
        length = token >> 4
        if length == 15:
            at, length = _longer(block, at, length)
        unpacked += block[at : at + length]
        at += length
        if at >= end:
            return
        distance = block[at] | block[at + 1] << 8
        at += 2
        length = token & 15
        if length == 15:
            at, length = _longer(block, at, length)
        length += 4
        source = len(unpacked) - distance
        if not distance or source < begin or len(unpacked) + length > KERNEL_BYTES_MAX:
            raise KernelUnusable("the kernel is damaged")
        if distance >= length:
            unpacked += unpacked[source : source + length]
        else:  # it repeats itself
            piece = bytes(unpacked[source:])
            unpacked += (piece * (length // distance + 1))[:length]


def _longer(block: bytes, at: int, length: int) -> tuple[int, int]:
    while True:
        more = block[at]
        at += 1
        length += more
        if more != 255:
            return at, length
