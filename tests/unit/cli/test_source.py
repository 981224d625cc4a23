"""Which files are deployed, and that equal folders give equal archives."""

import os
import stat
import zipfile
from pathlib import Path

import pytest

from stoker.cli import source


def names(root: Path, patterns: list[str] | None = None) -> list[str]:
    return [str(name) for name in source.selected(root, patterns or [])]


def make(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(file)


def test_what_is_no_code_stays_here(tmp_path: Path) -> None:
    make(
        tmp_path,
        *("a.py", ".git/config", "__pycache__/a.pyc", "env/pyvenv.cfg", "env/lib/x.py", ".DS_Store"),
        *(
            "node_modules/m/index.js",
            "node_modules/.cache/x",
            "lib/__pycache__/b.pyc",
            "lib/b.py",
            "lone.pyc",
        ),
    )
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == ["a.py", "lib/b.py", "lone.pyc", "node_modules/m/index.js"]


def test_stokerignore(tmp_path: Path) -> None:
    make(tmp_path, "a.py", "secret.txt", "deep/secret.txt", "tests/t.py", "data/big.bin", "data/small.bin")
    (tmp_path / ".stokerignore").write_text("# what stays\n\nsecret.*\n/tests/\ndata/b*\n")
    patterns = source.ignore_patterns(tmp_path)
    assert patterns == ["secret.*", "tests", "data/b*"]
    assert names(tmp_path, patterns) == ["a.py", "data/small.bin"]


def test_links_inside_stay_links_and_links_outside_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make(root, "lib/a.txt")
    (root / "file").symlink_to("lib/a.txt")
    (root / "folder").symlink_to("lib")
    assert names(root) == ["file", "folder", "lib/a.txt"]
    archive = tmp_path / "x.zip"
    source.write_archive(root, archive)
    with zipfile.ZipFile(archive) as opened:
        assert stat.S_ISLNK(opened.getinfo("folder").external_attr >> 16)
        assert opened.read("file") == b"lib/a.txt"
    for target in ("../outside", "/etc/passwd", str(root / "lib")):
        (root / "bad").symlink_to(target)
        with pytest.raises(source.SourceError, match="copy what it points to"):
            names(root)
        (root / "bad").unlink()


def test_equal_folders_give_equal_archives(tmp_path: Path) -> None:
    archives: list[bytes] = []
    for number, order in enumerate((("b", "a/x", "a/b"), ("a/b", "b", "a/x"))):
        root = tmp_path / str(number)
        make(root, *order)
        (root / "b").chmod(0o700 if number else 0o755)
        os.utime(root / "b", (number, number))
        source.write_archive(root, tmp_path / f"{number}.zip")
        archives.append((tmp_path / f"{number}.zip").read_bytes())
    assert archives[0] == archives[1]
    (tmp_path / "1" / "b").chmod(0o600)
    source.write_archive(tmp_path / "1", tmp_path / "1.zip")
    assert (tmp_path / "1.zip").read_bytes() != archives[0]


def test_a_copy_keeps_modes_and_links(tmp_path: Path) -> None:
    make(tmp_path / "from", "deep/run", "left")
    (tmp_path / "from/deep/run").chmod(0o755)
    (tmp_path / "from/link").symlink_to("deep/run")
    source.copy(tmp_path / "from", [Path("deep/run"), Path("link")], tmp_path / "to")
    assert names(tmp_path / "to") == ["deep/run", "link"]
    assert (tmp_path / "to/deep/run").stat().st_mode & 0o111
    assert (tmp_path / "to/link").is_symlink()


def test_too_large_is_said_before_anything_is_built(tmp_path: Path) -> None:
    make(tmp_path, "a.py")
    with (tmp_path / "model.bin").open("wb") as sparse:
        sparse.truncate(source.UNPACKED_BYTES_MAX)
    with pytest.raises(source.SourceError, match=r"the biggest: model\.bin \(250\.0 MB\)"):
        source.check_size(tmp_path, source.selected(tmp_path, []))
    with (tmp_path / "x.zip").open("wb") as sparse:
        sparse.truncate(source.UPLOAD_BYTES_MAX + 1)
    with pytest.raises(source.SourceError, match=r"an upload may have 50\.0 MB"):
        source.check_archive(tmp_path / "x.zip")
