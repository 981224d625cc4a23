"""V8's code caches of a tree's CommonJS files: one pack per account and build of Node.js, outside the tree.

Caches come from a process that read hostile input, and V8 reads them without a check that would stop a
forger: a pack may reach no sandbox but those of its own archive.
"""

import hashlib
import os
import re
import shutil
import stat
from pathlib import Path
from typing import Final

import msgspec

SCRIPTS_MAX: Final = 4_000
SCRIPT_MAX_BYTES: Final = 8 * 1024**2
CACHE_MAX_BYTES: Final = 16 * 1024**2
"""Of one file, as the compiler's limit has it."""
PACK_MAX_BYTES: Final = 64 * 1024**2
PACKS_MAX: Final = 16
PACKS_MAX_BYTES: Final = 128 * 1024**2
"""Of one archive, over all accounts and builds; the oldest make room."""

PACK: Final = "pack"
MAGIC: Final = b"stoker-code-cache/1\n"
"""Then the length of the index (4 bytes, little endian), the index in JSON and the caches."""

_COMPILED: Final = "compiled"
_MAKING: Final = ".making"
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_READABLE: Final = 0o755
"""Sandboxes read packs under other uids."""
_ACCOUNT: Final = re.compile(r"[0-9]{12}")


class NodeRecipe(msgspec.Struct, frozen=True):
    """Functions of each file compiled ahead; nothing of the tree is run."""

    interpreter: Path
    home: Path
    account: str
    build: str
    """Of the interpreter; a pack serves no other."""
    language: str = "nodejs"
    output_max_bytes: int = PACK_MAX_BYTES

    def made(self) -> Path | None:
        """The folder with the finished pack."""
        folder = self.home / self._place
        return folder if (folder / PACK).is_file() else None

    @property
    def _place(self) -> str:
        if not _ACCOUNT.fullmatch(self.account):
            raise ValueError(f"{self.account!r} is not an account")
        return f"{_COMPILED}/{self.account}-{self.build}"

    def sources(self, tree: int) -> list[str]:
        """Nothing once there is a pack."""
        if self.made() is not None:
            return []
        return scripts_of(tree)

    def place(self, tree: int, out: int, sources: list[str]) -> int:
        """Make the pack of what was compiled; nothing when that is nothing."""
        caches = finished(out, sources)
        home = os.open("..", _DIRECTORY, dir_fd=tree)
        try:
            if caches:
                _write_pack(home, self._place, out, caches)
        finally:
            os.close(home)
        return len(caches)


def scripts_of(tree: int) -> list[str]:
    """Regular CommonJS files worth a cache, the tree's own before those of folders below."""
    found: list[str] = []
    for walked, _, names, descriptor in os.fwalk(".", dir_fd=tree):
        folder = walked.removeprefix(".").removeprefix("/")
        found += [
            f"{folder}/{name}" if folder else name
            for name in names
            if name.endswith((".js", ".cjs")) and name.isprintable() and _is_script(descriptor, name)
        ]
        if len(found) >= SCRIPTS_MAX:
            return found[:SCRIPTS_MAX]
    return found


def build_of(interpreter: Path) -> str:
    """Another name whenever the program is another: V8 refuses the caches of other versions on its own."""
    program = interpreter.resolve()
    status = program.stat()
    told = f"{program}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}"
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _is_script(folder: int, name: str) -> bool:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and 0 < status.st_size <= SCRIPT_MAX_BYTES


def finished(out: int, sources: list[str]) -> list[tuple[str, str, int]]:
    """(source, name of its cache in ``out``, size), as far as the pack has room."""
    caches: list[tuple[str, str, int]] = []
    left_bytes = PACK_MAX_BYTES
    for number, source in enumerate(sources):
        try:
            status = os.stat(str(number), dir_fd=out, follow_symlinks=False)
        except FileNotFoundError:  # it does not compile
            continue
        if stat.S_ISREG(status.st_mode) and 0 < status.st_size <= min(left_bytes, CACHE_MAX_BYTES):
            caches.append((source, str(number), status.st_size))
            left_bytes -= status.st_size
    return caches


def _write_pack(home: int, place: str, out: int, caches: list[tuple[str, str, int]]) -> None:
    """Complete and on disk before it has its name. Nobody but this process writes in that folder."""
    folder = _made_folder(home, place, sum(size_bytes for _, _, size_bytes in caches))
    try:
        pack = os.open(
            _MAKING,
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o644,
            dir_fd=folder,
        )
        try:
            fill(pack, out, caches)
            os.fchmod(pack, 0o644)
            os.fsync(pack)
        finally:
            os.close(pack)
        os.rename(_MAKING, PACK, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)


def _make_room(above: int, size_bytes: int) -> None:
    """Remove the oldest packs until another one fits; who has one mounted compiles for himself again."""
    names = os.listdir(above)
    names.sort(key=lambda name: os.stat(name, dir_fd=above).st_mtime_ns, reverse=True)
    left_bytes = sum(_pack_bytes(above, name) for name in names)
    while names and (len(names) >= PACKS_MAX or left_bytes + size_bytes > PACKS_MAX_BYTES):
        oldest = names.pop()
        left_bytes -= _pack_bytes(above, oldest)
        shutil.rmtree(oldest, dir_fd=above)


def _pack_bytes(above: int, name: str) -> int:
    """What a folder of a pack takes; also one that was never finished."""
    folder = os.open(name, _DIRECTORY, dir_fd=above)
    try:
        return sum(os.stat(file, dir_fd=folder).st_size for file in os.listdir(folder))
    finally:
        os.close(folder)


def _made_folder(home: int, place: str, size_bytes: int) -> int:
    compiled, name = place.split("/")
    _make_folder(home, compiled)
    above = os.open(compiled, _DIRECTORY, dir_fd=home)
    try:
        _make_room(above, size_bytes)
        _make_folder(above, name)
        return os.open(name, _DIRECTORY, dir_fd=above)
    finally:
        os.close(above)


def _make_folder(above: int, name: str) -> None:
    try:
        os.mkdir(name, _READABLE, dir_fd=above)
    except FileExistsError:
        return
    os.chmod(name, _READABLE, dir_fd=above)


def fill(pack: int, out: int, caches: list[tuple[str, str, int]]) -> None:
    """Write the pack of finished caches into an open, empty file."""
    index: dict[str, tuple[int, int]] = {}
    end = 0
    for source, _, size_bytes in caches:
        index[source] = end, size_bytes
        end += size_bytes
    encoded = msgspec.json.encode(index)
    _write(pack, MAGIC + len(encoded).to_bytes(4, "little") + encoded)
    for _, name, size_bytes in caches:
        cache = os.open(name, _FILE, dir_fd=out)
        try:
            content = os.read(cache, size_bytes)
        finally:
            os.close(cache)
        # Its compiler has ended, so a file that is shorter now is the host's failure.
        if len(content) != size_bytes:
            raise OSError("a finished cache changed its size")
        _write(pack, content)


def _write(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
