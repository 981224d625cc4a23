"""Hostile zips: each is refused with Lambda's error and nothing is written outside the code's own folder."""

import os
import random
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.core.errors import ServiceError
from stoker.packaging.archive import DEPTH_MAX, UNZIPPED_MAX_BYTES
from tests.code_stores import TreeStore, opened, unpacking
from tests.security.archives.zips import (
    archive,
    fingerprint,
    link,
    member,
    overlapping_bomb,
    patched,
    quoted_overlap_bomb,
    with_flag,
    with_method,
    with_size,
)

MALFORMED = "Could not unzip uploaded file. Please check your file, then try to upload again."
TOO_BIG = f"Unzipped size must be smaller than {UNZIPPED_MAX_BYTES} bytes"
EMPTY = "Uploaded file must be a non-empty zip"

PLAIN = archive(("a.py", b"x = 1\n" * 50), ("b/c.py", b"y = 2\n" * 50))

REFUSED = {
    "parent": (archive(("../evil", b"x")), MALFORMED),
    "parent inside": (archive(("a/../../evil", b"x")), MALFORMED),
    "parent as last": (archive(("a/..", b"x")), MALFORMED),
    "absolute": (archive(("/tmp/evil", b"x")), MALFORMED),
    "backslash": (archive(("..\\evil", b"x")), MALFORMED),
    "NUL in a name": (patched(archive(("good_name", b"x")), b"good_name", b"good\0name"), MALFORMED),
    "block device": (archive((member("sda", kind=stat.S_IFBLK), b"")), MALFORMED),
    "character device": (archive((member("mem", kind=stat.S_IFCHR), b"")), MALFORMED),
    "fifo": (archive((member("pipe", kind=stat.S_IFIFO), b"")), MALFORMED),
    "socket": (archive((member("sock", kind=stat.S_IFSOCK), b"")), MALFORMED),
    "duplicate": (archive(("a", b"1"), ("a", b"2")), MALFORMED),
    "duplicate in disguise": (archive(("d/a", b"1"), ("d/./a", b"2")), MALFORMED),
    "file is a directory too": (archive(("a", b"1"), ("a/b", b"2")), MALFORMED),
    "below a link": (archive(link("out", "/tmp"), ("out/evil", b"x")), MALFORMED),
    "link below a link": (archive(link("out", "/tmp"), link("out/evil", "x")), MALFORMED),
    "link replaces a file": (archive(("a", b"1"), link("a", "/etc/passwd")), MALFORMED),
    "empty link": (archive(link("a", "")), MALFORMED),
    "link with NUL": (archive(link("a", "b\0c")), MALFORMED),
    "long link": (archive(link("a", "b" * 5000)), MALFORMED),
    "directory with content": (archive((member("d/", kind=stat.S_IFDIR), b"x")), MALFORMED),
    "no name": (archive((".", b"x")), MALFORMED),
    "long name": (archive(("n" * 256, b"x")), MALFORMED),
    "long path": (archive(("d/" * 60 + "n" * 4000, b"x")), MALFORMED),
    "deep": (archive(("d/" * DEPTH_MAX + "f", b"x")), MALFORMED),
    "encrypted": (with_flag(PLAIN, 0x01), MALFORMED),
    "strongly encrypted": (with_flag(PLAIN, 0x41), MALFORMED),
    "masked": (with_flag(PLAIN, 0x2000), MALFORMED),
    "deflate64": (with_method(PLAIN, 9), MALFORMED),
    "bzip2": (with_method(PLAIN, 12), MALFORMED),
    "lzma": (with_method(PLAIN, 14), MALFORMED),
    "unknown method": (with_method(PLAIN, 0x7FFF), MALFORMED),
    "stored but not": (with_method(PLAIN, 0), MALFORMED),
    "says less than it holds": (with_size(PLAIN, 10), MALFORMED),
    "says more than it holds": (with_size(PLAIN, 10_000), MALFORMED),
    "says far more": (with_size(PLAIN, UNZIPPED_MAX_BYTES), TOO_BIG),
    "truncated end": (PLAIN[:-10], MALFORMED),
    "truncated middle": (PLAIN[: len(PLAIN) // 2], MALFORMED),
    "no members": (archive(), EMPTY),
    "header only": (PLAIN[:30], MALFORMED),
    "local header destroyed": (PLAIN.replace(b"PK\x03\x04", b"PK\x03\x05", 1), MALFORMED),
    "damaged data": (PLAIN[:40] + bytes(byte ^ 0xFF for byte in PLAIN[40:50]) + PLAIN[50:], MALFORMED),
    "bomb of zeros": (archive(("zeros", b"\0" * (UNZIPPED_MAX_BYTES + 1))), TOO_BIG),
    "overlapping bomb": (overlapping_bomb(100), MALFORMED),
    "overlapping bomb, large": (overlapping_bomb(5000), TOO_BIG),
    "quoted overlap bomb": (quoted_overlap_bomb(50), MALFORMED),
}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[TreeStore]:
    made = await opened(tmp_path / "inner" / "data", packers=1)
    yield made
    await made.end()


@pytest.mark.parametrize("name", REFUSED)
async def test_hostile_archive_is_refused_and_leaves_nothing(
    store: TreeStore, tmp_path: Path, name: str
) -> None:
    content, message = REFUSED[name]
    before = fingerprint(str(tmp_path))
    with pytest.raises(ServiceError) as refused:
        await store.admit(content)
    assert (refused.value.code, refused.value.message) == ("InvalidParameterValueException", message)
    assert fingerprint(str(tmp_path)) == before


async def test_links_are_kept_verbatim_and_never_followed(store: TreeStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    targets = {
        "up": "../../../secret",
        "abs": "/etc/passwd",
        "dangling": "nowhere",
        "self": "self",
        "in": "f",
    }
    content = archive(("f", b"x"), ("d/", b""), *(link(name, target) for name, target in targets.items()))
    tree = await store.ready((await store.admit(content)).code_sha256)
    assert {name: os.readlink(tree / name) for name in targets} == targets
    assert (tmp_path / "secret").read_text() == "secret"


async def test_modes_and_times_are_what_a_sandbox_needs(store: TreeStore) -> None:
    content = archive(
        (member("plain", 0o600), b"x"),
        (member("run", 0o700), b"x"),
        (member("setuid", 0o6755), b"x"),
        (member("sticky/", 0o1777, kind=stat.S_IFDIR), b""),
        (member("locked/f", 0o000), b"x"),
    )
    tree = await store.ready((await store.admit(content)).code_sha256)
    modes = {str(path.relative_to(tree)): stat.S_IMODE(path.lstat().st_mode) for path in tree.rglob("*")}
    assert modes == {
        "plain": 0o644,
        "run": 0o755,
        "setuid": 0o755,
        "sticky": 0o755,
        "locked": 0o755,
        "locked/f": 0o644,
    }
    assert stat.S_IMODE(tree.stat().st_mode) == 0o755
    assert (tree / "plain").stat().st_mtime == 1714979290  # 2024-05-06 07:08:10 UTC


async def test_names_beyond_ascii_survive_with_and_without_the_flag(store: TreeStore) -> None:
    flagged = archive(("grün.txt", b"x"))
    # Info-ZIP writes UTF-8 and leaves the flag unset.
    unflagged = bytearray(archive(("gr__n.txt", b"x")))
    unflagged = bytearray(bytes(unflagged).replace(b"gr__n.txt", "grün.txt".encode()))
    for content in (flagged, bytes(unflagged)):
        tree = await store.ready((await store.admit(content)).code_sha256)
        assert os.listdir(tree) == ["grün.txt"]


async def test_a_zip_behind_other_bytes_and_with_a_comment_is_still_a_zip(store: TreeStore) -> None:
    assert (await store.admit(b"#!/bin/sh\nexit\n" + PLAIN)).unpacked_bytes == 600


@pytest.mark.parametrize("seed", range(4))
async def test_damaged_archives_never_get_out(store: TreeStore, seed: int) -> None:
    """Random damage to real archives: an answer in Lambda's words or a success, and nothing else ever."""
    chance = random.Random(seed)
    originals = [PLAIN, archive(link("l", "../x"), ("d/f", b"z" * 3000), ("e/", b"")), overlapping_bomb(3)]
    data = store.folder.parent
    there = sorted(os.listdir(data))
    answers: set[str] = set()
    for _ in range(60):
        content = bytearray(chance.choice(originals))
        for _ in range(chance.randint(1, 4)):
            _damage(content, chance)
        answers.add(await _answer(store, bytes(content)))
        assert os.listdir(data.parent) == ["data"]
        assert sorted(os.listdir(data)) == there
    assert answers <= {"admitted", MALFORMED, TOO_BIG, EMPTY}
    assert len(answers) > 1
    assert os.listdir(unpacking(data)) == []


async def _answer(store: TreeStore, content: bytes) -> str:
    try:
        await store.admit(content)
    except ServiceError as refused:
        return refused.message if refused.code == "InvalidParameterValueException" else refused.code
    return "admitted"


def _damage(content: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(content))
    match chance.randrange(5):
        case 0:
            content[at] = chance.randrange(256)
        case 1:
            content[at : at + 4] = chance.randbytes(4)
        case 2:
            del content[at : at + chance.randint(1, 20)]
        case 3:
            content[at:at] = content[at : at + chance.randint(1, 60)]
        case _:
            magic = content.find(b"PK\x01\x02")
            if magic >= 0:
                content[magic + chance.randrange(46)] = chance.randrange(256)
    if not content:
        content.extend(b"x")
