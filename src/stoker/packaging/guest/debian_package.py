"""Reads files out of a Debian package (an ar archive with a tar archive in it) without unpacking it."""

import io
import lzma
import tarfile
from collections.abc import Callable, Iterator

import zstandard

from stoker.core.errors import StokerError

PACKAGE_BYTES_MAX = 512 * 1024 * 1024
_AR = b"!<arch>\n"


class PackageUnreadable(StokerError):
    """This is no Debian package."""


def files_of(package: bytes, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """The regular files whose path (``boot/vmlinuz-...``) is wanted.

    Raises:
        PackageUnreadable
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(_data(package))) as archive:
            for member in archive:
                path = member.name.removeprefix("./")
                if member.isreg() and wanted(path) and (content := archive.extractfile(member)):
                    yield path, content.read()
    except (tarfile.TarError, lzma.LZMAError, zstandard.ZstdError) as problem:
        raise PackageUnreadable(f"the package cannot be read: {problem}") from problem


def _data(package: bytes) -> bytes:
    """The tar archive, unpacked."""
    if not package.startswith(_AR):
        raise PackageUnreadable("no Debian package")
    at = len(_AR)
    while at + 60 <= len(package):
        name = package[at : at + 16].rstrip(b" /")
        size = int(package[at + 48 : at + 58])
        content = package[at + 60 : at + 60 + size]
        if name == b"data.tar.xz":
            return lzma.decompress(content)
        if name == b"data.tar.zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(content)
        if name == b"data.tar":
            return content
        at += 60 + size + size % 2
    raise PackageUnreadable("a Debian package without data.tar.xz, data.tar.zst or data.tar")
