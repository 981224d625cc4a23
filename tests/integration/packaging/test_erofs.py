"""Images written by our EROFS writer, mounted by this kernel and checked by erofs-utils."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.packaging.test_erofs import data_of, sample, whole

ROOT = os.geteuid() == 0
EROFS = "erofs" in Path("/proc/filesystems").read_text()

needs_mount = pytest.mark.skipif(not (ROOT and EROFS), reason="mounting needs root and EROFS in the kernel")


@contextmanager
def mounted(image: Path, *options: str) -> Iterator[Path]:
    folder = image.with_suffix(".mounted")
    folder.mkdir()
    result = subprocess.run(
        ["mount", "-t", "erofs", "-o", ",".join(("ro", "nosuid", "nodev", *options)), image, folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0 and not options:
        pytest.skip(f"this kernel mounts no EROFS from a file (6.12 does): {result.stderr}")
    assert result.returncode == 0, result.stderr
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()


@needs_mount
@pytest.mark.parametrize("block_bytes", [512, 1024, 4096])
@pytest.mark.parametrize("options", [(), ("loop",)], ids=["file", "loop"])
def test_the_kernel_sees_the_tree(tmp_path: Path, block_bytes: int, options: tuple[str, ...]) -> None:
    root = sample()
    image = tmp_path / "image"
    image.write_bytes(whole(root, block_bytes, 1_600_000_000))
    with mounted(image, *options) as folder:
        _compare(root, os.fsencode(folder))
        assert os.stat(folder / "shared").st_ino == os.stat(folder / "again").st_ino


def _compare(node, path: bytes) -> None:
    seen = os.lstat(path)
    assert (seen.st_mode, seen.st_uid, seen.st_gid) == (node.mode, node.uid, node.gid)
    assert seen.st_mtime_ns == node.mtime_s * 10**9 + node.mtime_ns
    assert seen.st_nlink == node.names
    if not stat.S_ISFIFO(node.mode):
        names = os.listxattr(path, follow_symlinks=False)
        assert {name: os.getxattr(path, name, follow_symlinks=False) for name in names} == dict(node.xattrs)
    if node.is_folder:
        assert set(os.listdir(path)) == set(node.children)
        for name, child in node.children.items():
            _compare(child, path + b"/" + name)
    elif node.is_file:
        assert Path(os.fsdecode(path)).read_bytes() == data_of(node)
    elif stat.S_ISLNK(node.mode):
        assert os.readlink(path) == node.link


@pytest.mark.skipif(shutil.which("fsck.erofs") is None, reason="fsck.erofs (erofs-utils) is not here")
def test_fsck_finds_nothing(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(whole(sample(), 4096))
    checked = subprocess.run(["fsck.erofs", "--extract", image], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    told = subprocess.run(["dump.erofs", "-s", image], capture_output=True, text=True, check=True).stdout
    assert "sb_csum" in told
