"""Which sources lack byte-code, and that placing it follows no link and believes no file."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.packaging.bytecode_tree import SOURCE_MAX_BYTES, Dialect, Source, place, sources_without_bytecode

DIALECT = Dialect("cpython-311", b"\xa7\r\r\n")
OTHER_MAGIC = b"\xcb\r\r\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "pkg").mkdir(parents=True)
    (tmp_path / "tree" / "main.py").write_text("x = 1")
    (tmp_path / "tree" / "pkg" / "inner.py").write_text("y = 2")
    return tmp_path / "tree"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def descriptors(tree: Path, out: Path) -> Iterator[tuple[int, int]]:
    opened = os.open(tree, os.O_RDONLY), os.open(out, os.O_RDONLY)
    yield opened
    for descriptor in opened:
        os.close(descriptor)


def pyc(magic: bytes = DIALECT.magic, flags: int = 1, rest: bytes = b"12345678body") -> bytes:
    return magic + struct.pack("<I", flags) + rest


def cached(tree: Path, content: bytes) -> Path:
    (tree / "__pycache__").mkdir(exist_ok=True)
    file = tree / "__pycache__" / "main.cpython-311.pyc"
    file.write_bytes(content)
    return file


def paths(tree: int) -> list[str]:
    return sorted(source.path for source in sources_without_bytecode(tree, DIALECT))


def test_only_regular_python_files_are_sources(tree: Path, descriptors: tuple[int, int]) -> None:
    (tree / "notes.txt").write_text("x")
    (tree / ".py").write_text("x")
    (tree / "link.py").symlink_to("main.py")
    (tree / "elsewhere").symlink_to("/usr/lib")
    (tree / "folder.py").mkdir()
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__" / "odd.py").write_text("x")
    os.truncate(os.open(tree / "huge.py", os.O_CREAT | os.O_WRONLY), SOURCE_MAX_BYTES + 1)
    os.mkfifo(tree / "pipe.py")
    assert paths(descriptors[0]) == ["main.py", "pkg/inner.py"]


def test_uploaded_bytecode_that_would_be_used_stays(tree: Path, descriptors: tuple[int, int]) -> None:
    status = (tree / "main.py").stat()
    by_time = struct.pack("<II", int(status.st_mtime), status.st_size)
    for usable in (pyc(flags=1), pyc(flags=3), pyc(flags=0, rest=by_time)):
        cached(tree, usable)
        assert paths(descriptors[0]) == ["pkg/inner.py"]


def test_bytecode_that_would_be_ignored_is_made_again(tree: Path, descriptors: tuple[int, int]) -> None:
    stale = struct.pack("<II", 1, 5)
    for useless in (b"", b"short", pyc(OTHER_MAGIC), pyc(flags=0, rest=stale)):
        cached(tree, useless)
        assert paths(descriptors[0]) == ["main.py", "pkg/inner.py"]


def test_placed_bytecode_is_readable_and_leaves_the_folders_time(
    tree: Path, out: Path, descriptors: tuple[int, int]
) -> None:
    os.utime(tree / "pkg", (1000, 1000))
    (out / "0").write_bytes(pyc())
    (out / "0").chmod(0o600)
    assert place(*descriptors, [Source("pkg", "inner.py")], DIALECT) == 1
    placed = tree / "pkg" / "__pycache__" / "inner.cpython-311.pyc"
    assert placed.read_bytes() == pyc()
    assert placed.stat().st_mode & 0o777 == 0o644
    assert placed.parent.stat().st_mode & 0o777 == 0o755
    assert (tree / "pkg").stat().st_mtime == 1000
    assert paths(descriptors[0]) == ["main.py"]


def test_what_is_not_finished_bytecode_is_not_placed(
    tree: Path, out: Path, descriptors: tuple[int, int]
) -> None:
    (out / "0").symlink_to("/etc/passwd")
    (out / "1").write_bytes(pyc(OTHER_MAGIC))
    (out / "2").write_bytes(pyc(flags=0))
    (out / "3").write_bytes(pyc()[:10])
    (out / "4").mkdir()
    os.mkfifo(out / "5")
    (out / "6.part").write_bytes(pyc())
    assert place(*descriptors, [Source("", "main.py")] * 7, DIALECT) == 0
    assert not (tree / "__pycache__").exists()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_was_uploaded_as_the_cache_folder_stays(
    tree: Path, out: Path, descriptors: tuple[int, int], kind: str, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if kind == "link":
        (tree / "__pycache__").symlink_to(elsewhere)
    else:
        (tree / "__pycache__").write_text("mine")
    (out / "0").write_bytes(pyc())
    assert place(*descriptors, [Source("", "main.py")], DIALECT) == 0
    assert list(elsewhere.iterdir()) == []
    assert (tree / "__pycache__").is_symlink() == (kind == "link")


def test_a_folder_that_is_a_link_is_not_entered(
    tree: Path, out: Path, descriptors: tuple[int, int], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tree / "away").symlink_to(tmp_path / "elsewhere")
    (out / "0").write_bytes(pyc())
    assert place(*descriptors, [Source("away", "main.py")], DIALECT) == 0
    assert list((tmp_path / "elsewhere").iterdir()) == []
