"""What an ELF program or library needs, as its dynamic section says. Pure; never runs it (as ldd may)."""

import struct

import msgspec

_INTERPRETER = 3
_DYNAMIC = 2
_LOAD = 1
_NEEDED, _STRTAB, _RPATH, _RUNPATH = 1, 5, 15, 29


class Needs(msgspec.Struct, frozen=True):
    """Names of libraries, where else they are looked for, and the loader of a program."""

    libraries: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    loader: str = ""


def needs_of(content: bytes) -> Needs | None:
    """None when this is no 64-bit little-endian ELF file."""
    if content[:6] != b"\x7fELF\x02\x01" or len(content) < 64:
        return None
    (start,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    segments = [struct.unpack_from("<IIQQQQ", content, start + size * number) for number in range(count)]
    loader = ""
    entries: list[tuple[int, int]] = []
    for kind, _, offset, _, _, length in segments:
        if kind == _INTERPRETER:
            loader = content[offset : offset + length].rstrip(b"\0").decode()
        elif kind == _DYNAMIC:
            entries = list(struct.iter_unpack("<qQ", content[offset : offset + length - length % 16]))
    table = next((value for tag, value in entries if tag == _STRTAB), 0)
    for kind, _, offset, address, _, length in segments:
        if kind == _LOAD and address <= table < address + length:
            table += offset - address
            break

    def text(position: int) -> str:
        begin = table + position
        return content[begin : content.index(b"\0", begin)].decode()

    libraries = tuple(text(value) for tag, value in entries if tag == _NEEDED)
    folders = tuple(
        each for tag, value in entries if tag in (_RPATH, _RUNPATH) for each in text(value).split(":")
    )
    return Needs(libraries, folders, loader)
