"""Images flattened by the confined process, mounted by this kernel, and compared with what others unpack."""

import asyncio
import hashlib
import os
import random
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from stoker.packaging.flatten.flattener import Flattening, FlatteningFailed, ReceivedChunk, Store
from tests.images.flattening import SALT, Flat, add_layer, flatten
from tests.images.layers import File, Hardlink, Symlink, layer_tar, write_layer_tar
from tests.integration.packaging.test_erofs import mounted, needs_mount

GNU_TAR = shutil.which("tar")


@needs_mount
async def test_a_mounted_image_is_what_the_layers_say(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(3_000_000)
    flat = await flatten(
        {
            "etc/passwd": "app:x:1000:1001::/home/app:/bin/sh\n",
            "usr/bin/tool": File(content, mode=0o755, uid=7),
            "old/a": b"a",
            "lib": Symlink("usr/lib"),
        },
        {"old/.wh.a": b"", "lib/new": b"new", "usr/bin/alias": Hardlink("usr/bin/tool")},
        user="app",
        compression="gzip",
    )
    assert flat.answer is not None
    assert flat.answer.user is not None
    assert flat.answer.user.gid == 1001
    with mounted(flat.write(tmp_path / "image")) as root:
        assert (root / "usr/bin/tool").read_bytes() == content
        assert (root / "usr/bin/tool").stat().st_uid == 7
        assert (root / "usr/bin/alias").stat().st_ino == (root / "usr/bin/tool").stat().st_ino
        assert (root / "usr/lib/new").read_text() == "new"
        assert os.listdir(root / "old") == []


@needs_mount
@pytest.mark.parametrize("block_bytes", [512, 4096])
@pytest.mark.parametrize("form", ["gnu", "pax", "pax --sparse-version=0.0", "pax --sparse-version=0.1"])
@pytest.mark.skipif(GNU_TAR is None, reason="GNU tar is not here")
async def test_sparse_files_of_gnu_tar(tmp_path: Path, form: str, block_bytes: int) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        for offset in range(0, 40_000_000, 1_700_003):
            file.seek(offset)
            file.write(b"data" * 3000)
        file.truncate(50_000_000)
    (tree / "dense").write_bytes(random.Random(2).randbytes(100_000))
    tar = tmp_path / "layer.tar"
    subprocess.run(["tar", "--sparse", *f"--format={form}".split(), "-cf", tar, "-C", tree, "."], check=True)
    flat = await flatten(tar, block_bytes=block_bytes)
    assert flat.stored_bytes < 3_000_000
    with mounted(flat.write(tmp_path / "image")) as root:
        for name in ("sparse", "dense"):
            assert _digest(root / name) == _digest(tree / name)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@needs_mount
@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not here")
async def test_umoci_unpacks_the_same(tmp_path: Path) -> None:
    """A tree packed and changed by umoci; its own unpacking is the other opinion."""
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    for command in (
        ["init", "--layout", layout],
        ["new", "--image", f"{layout}:one"],
        ["unpack", "--image", f"{layout}:one", bundle],
    ):
        subprocess.run(["umoci", *command], check=True, capture_output=True)
    rootfs = bundle / "rootfs"
    shutil.copytree(Path(tarfile.__file__).parent / "json", rootfs / "lib", symlinks=True)
    (rootfs / "sub/dir").mkdir(parents=True)
    (rootfs / "sub/dir/file").write_text("x")
    os.link(rootfs / "sub/dir/file", rootfs / "sub/link")
    os.setxattr(rootfs / "sub/link", "user.mark", b"value")
    os.chown(rootfs / "sub/dir", 1234, 4321)
    subprocess.run(
        ["umoci", "repack", "--refresh-bundle", "--image", f"{layout}:one", bundle],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(rootfs / "sub/dir")
    (rootfs / "sub/dir").write_text("a file now")
    (rootfs / "added").symlink_to("/sub")
    subprocess.run(["umoci", "repack", "--image", f"{layout}:one", bundle], check=True, capture_output=True)
    again = tmp_path / "again"
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:one", again], check=True, capture_output=True)
    flat = await _flatten_layout(layout, "one")
    with mounted(flat.write(tmp_path / "image")) as root:
        added = {"dev", "proc", "sys", "tmp", "opt", "run", "var", "etc"}
        assert _listing(root, added) == _listing(again / "rootfs", added)


async def _flatten_layout(layout: Path, tag: str) -> Flat:
    import json
    import tempfile

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    index = json.loads((layout / "index.json").read_text())
    (found,) = [
        each for each in index["manifests"] if each["annotations"]["org.opencontainers.image.ref.name"] == tag
    ]
    manifest = json.loads(blob(found["digest"]).read_text())
    config = json.loads(blob(manifest["config"]["digest"]).read_text())
    flat = Flat()
    with tempfile.TemporaryFile(dir="/var/tmp") as scratch:
        async with Flattening(salt=SALT, scratch=scratch.fileno(), store=flat.store) as flattening:
            for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
                with blob(layer["digest"]).open("rb") as file:
                    await flattening.add_layer(
                        file.fileno(), compression="gzip", digest=layer["digest"], diff_id=diff_id
                    )
            flat.answer = await flattening.finish("")
    return flat


def _listing(root: Path, without: set[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(root):
        if folder == str(root):
            folders[:] = [name for name in folders if name not in without]
            files[:] = [name for name in files if name not in without]
        for name in [*folders, *files]:
            path = Path(folder) / name
            seen = path.lstat()
            content = os.readlink(path) if path.is_symlink() else "" if path.is_dir() else _digest(path)
            xattrs = {
                each: os.getxattr(path, each, follow_symlinks=False)
                for each in os.listxattr(path, follow_symlinks=False)
            }
            links = 1 if stat.S_ISDIR(seen.st_mode) else seen.st_nlink
            found[str(path.relative_to(root))] = (
                seen.st_mode,
                seen.st_uid,
                seen.st_gid,
                int(seen.st_mtime),
                links,
                content,
                xattrs,
            )
    return found


async def test_a_layer_goes_through_in_little_memory(tmp_path: Path) -> None:
    """600 MB of files by a process that holds none of them."""
    noise = random.Random(3).randbytes(4 << 20)
    (tmp_path / "noise").write_bytes(noise)
    tar = write_layer_tar({f"f{number}": tmp_path / "noise" for number in range(150)}, tmp_path / "layer.tar")

    class Counting(Flat):
        peak_kb = 0

        async def store(self, chunks) -> None:
            for chunk in chunks:
                self.stored[chunk.name] = b""
            status = Path(f"/proc/{pid}/status").read_text()
            self.peak_kb = int(status.split("VmHWM:")[1].split()[0])

    flat = Counting()
    with (tmp_path / "scratch").open("wb+") as scratch:
        async with Flattening(salt=SALT, scratch=scratch.fileno(), store=flat.store) as flattening:
            pid = flattening._process.pid
            await add_layer(flattening, tar)
            await flattening.finish("")
    assert 0 < flat.peak_kb < 120 * 1024


async def _one_layer(scratch: Path, store: Store, mode: str = "wb+", *, kill: bool = False) -> None:
    tar = layer_tar({"f": random.Random(1).randbytes(2_000_000)})
    with scratch.open(mode) as file:
        async with Flattening(salt=SALT, scratch=file.fileno(), store=store) as flattening:
            if kill:
                flattening._process.kill()
            await add_layer(flattening, tar, "gzip")
            await flattening.finish("")


async def test_a_store_that_fails_ends_the_flattening(tmp_path: Path) -> None:
    class Full(Exception):
        pass

    async def store(chunks: Sequence[ReceivedChunk]) -> None:
        raise Full

    with pytest.raises(Full):
        await _one_layer(tmp_path / "scratch", store)


async def test_no_room_for_a_layer_is_said(tmp_path: Path) -> None:
    """A file that cannot be written stands for a disk that is full: the same way out."""
    (tmp_path / "scratch").touch()
    with pytest.raises(FlatteningFailed, match="flattener failed"):
        await _one_layer(tmp_path / "scratch", Flat().store, "rb")


async def test_a_killed_flattener_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(FlatteningFailed):
        await _one_layer(tmp_path / "scratch", Flat().store, kill=True)


async def test_a_store_may_be_slower_than_the_flattener(tmp_path: Path) -> None:
    """The last chunks are stored after the process has ended by itself."""
    flat = Flat()

    async def store(chunks: Sequence[ReceivedChunk]) -> None:
        await asyncio.sleep(0.5)
        await flat.store(chunks)

    await _one_layer(tmp_path / "scratch", store)
    assert flat.stored
