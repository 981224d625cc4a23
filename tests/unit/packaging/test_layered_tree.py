"""Merging trees by links: who wins, what is never followed, and byte-code of sources that were replaced."""

import os
import stat
from pathlib import Path

import pytest

from stoker.packaging import layered_tree
from stoker.packaging.layered_tree import merge

FLAGS = os.O_RDONLY | os.O_DIRECTORY


def tree(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        file = folder / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


def merged(tmp_path: Path, *trees: Path) -> Path:
    into = tmp_path / "into"
    into.mkdir()
    descriptors = [os.open(folder, FLAGS) for folder in (*trees, into)]
    try:
        merge(descriptors[:-1], descriptors[-1])
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return into


def test_files_are_links_and_directories_are_its_own(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        one = tree(tmp_path / "one", folder__file="x")
        os.utime(one / "folder", (1_000_000, 1_000_000))
        into = merged(tmp_path, one)
    finally:
        os.umask(old)
    assert (into / "folder/file").samefile(one / "folder/file")
    status = (into / "folder").stat()
    assert (stat.S_IMODE(status.st_mode), int(status.st_mtime)) == (0o755, 1_000_000)


@pytest.mark.parametrize("later", ["folder", "file", "link"])
@pytest.mark.parametrize("earlier", ["folder", "file", "link"])
def test_the_later_one_wins_whatever_they_are(tmp_path: Path, earlier: str, later: str) -> None:
    outside = tree(tmp_path / "outside", precious="kept")
    made: list[Path] = []
    for number, kind in enumerate((earlier, later)):
        root = tmp_path / str(number)
        root.mkdir()
        if kind == "folder":
            tree(root / "name", **{f"in{number}": "x"})
        elif kind == "file":
            (root / "name").write_text(str(number))
        else:
            (root / "name").symlink_to(outside)
        made.append(root)
    place = merged(tmp_path, *made) / "name"
    if later == "folder":
        assert not place.is_symlink()
        expected = {"in0", "in1"} if earlier == "folder" else {"in1"}
        assert set(os.listdir(place)) == expected
    elif later == "file":
        assert not place.is_symlink()
        assert place.read_text() == "1"
    else:
        assert os.readlink(place) == str(outside)
    assert os.listdir(outside) == ["precious"]


def test_byte_code_goes_with_the_source_that_is_replaced(tmp_path: Path) -> None:
    cached = "__pycache__/{}.cpython-311.pyc"
    one, two = tmp_path / "one", tmp_path / "two"
    for root, names in ((one, ("kept", "replaced", "both")), (two, ("replaced", "both"))):
        (root / "__pycache__").mkdir(parents=True)
        for name in names:
            (root / f"{name}.py").write_text(root.name)
    for root, names in ((one, ("kept", "replaced", "both")), (two, ("both",))):
        for name in names:
            (root / cached.format(name)).write_text(root.name)
    into = merged(tmp_path, one, two)
    assert (into / cached.format("kept")).read_text() == "one"
    assert not (into / cached.format("replaced")).exists()
    assert (into / cached.format("both")).read_text() == "two"
    assert (one / cached.format("replaced")).exists()


def test_what_cannot_be_linked_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = tree(tmp_path / "one", program="x")
    (one / "program").chmod(0o755)
    (one / "link").symlink_to("program")

    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(31, "Too many links")

    monkeypatch.setattr(layered_tree.os, "link", refuse)
    into = merged(tmp_path, one)
    assert (into / "program").read_text() == "x"
    assert not (into / "program").samefile(one / "program")
    assert stat.S_IMODE((into / "program").stat().st_mode) == 0o755
    assert os.readlink(into / "link") == "program"
