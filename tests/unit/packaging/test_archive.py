"""The plan of an archive: what is made, in which order, and why an archive is refused."""

import io
import stat
import zipfile

import pytest

from stoker.packaging.archive import ArchiveRefused, Plan, read_plan
from tests.security.archives.zips import archive, link, member, overlapping_bomb, quoted_overlap_bomb


def plan(content: bytes, limit_bytes: int = 10**9) -> Plan:
    stream = io.BytesIO(content)
    return read_plan(zipfile.ZipFile(stream), stream, limit_bytes)


def refusal(content: bytes, limit_bytes: int = 10**9) -> ArchiveRefused:
    with pytest.raises(ArchiveRefused) as refused:
        plan(content, limit_bytes)
    return refused.value


def test_parents_come_before_children_and_are_made_once() -> None:
    made = plan(archive(("b/c/d.py", b"1"), ("b/", b""), ("a.py", b"2"), ("b/x.py", b"3")))
    assert made.directories == (("b",), ("b", "c"))
    assert [found.path for found in made.files] == ["b/c/d.py", "a.py", "b/x.py"]
    assert made.unpacked_bytes == 3
    assert set(made.times) == {("b",)}


def test_links_are_kept_apart_so_that_they_can_come_last() -> None:
    made = plan(archive(link("l", "target"), ("f", b"1")))
    assert [found.path for found in made.files] == ["f"]
    assert [found.path for found in made.links] == ["l"]


def test_dots_and_double_slashes_vanish_from_names() -> None:
    made = plan(archive(("./a//b", b"1"), ("./", b"")))
    assert [found.parts for found in made.files] == [("a", "b")]


@pytest.mark.parametrize(
    ("mode", "executable"), [(0o600, False), (0o644, False), (0o700, True), (0o001, True), (0o000, False)]
)
def test_any_execute_bit_counts(mode: int, executable: bool) -> None:
    assert plan(archive((member("f", mode), b"1"))).files[0].executable is executable


def test_an_entry_without_unix_modes_is_a_plain_file() -> None:
    info = zipfile.ZipInfo("f")
    info.create_system = 0
    assert plan(archive((info, b"1"))).files[0].executable is False


def test_a_directory_needs_no_trailing_slash() -> None:
    made = plan(archive((member("d", kind=stat.S_IFDIR), b"")))
    assert made.directories == (("d",),)


def test_the_same_directory_may_come_twice() -> None:
    assert plan(archive(("d/", b""), ("d/", b""))).directories == (("d",),)


def test_the_limit_is_inclusive() -> None:
    content = archive(("f", b"x" * 100))
    assert plan(content, 100).unpacked_bytes == 100
    assert refusal(content, 99).kind == "too_big"


@pytest.mark.parametrize("bomb", [overlapping_bomb(10), quoted_overlap_bomb(10)])
def test_bombs_are_known_by_their_overlap(bomb: bytes) -> None:
    stream = io.BytesIO(bomb)
    opened = zipfile.ZipFile(stream)
    assert sum(info.file_size for info in opened.infolist()) > 1000 * len(bomb)
    assert "overlaps" in refusal(bomb).why


def test_the_quoted_bomb_is_a_valid_zip_to_a_naive_reader() -> None:
    """Otherwise the test above would prove nothing."""
    opened = zipfile.ZipFile(io.BytesIO(quoted_overlap_bomb(1, 1000)))
    assert opened.read("0000") == b"\0" * 1000
