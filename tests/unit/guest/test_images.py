"""What a guest boots from: archives as the kernel reads them, and kernels unpacked."""

import gzip
import io
import os
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from stoker.packaging.guest.cpio import Entry, archive
from stoker.packaging.guest.debian_package import PackageUnreadable, files_of
from stoker.packaging.guest.elf import needs_of
from stoker.packaging.guest.folder_image import write_folder_image
from stoker.packaging.guest.initramfs import initramfs, ordered
from stoker.packaging.guest.vmlinux import KernelUnusable, vmlinux_of


def _module(depends: str) -> bytes:
    return b"\x7fELF...license=GPL\0depends=" + depends.encode() + b"\0name=x\0"


def test_modules_come_after_what_they_need() -> None:
    modules = {
        "virtio_ring": _module(""),
        "virtio": _module("virtio_ring"),
        "virtio_mmio": _module("virtio,virtio-ring"),
        "vsock": _module(""),
        "vmw_vsock_virtio_transport": _module("vsock,virtio"),
        "of_no_use": _module(""),
    }
    assert ordered(modules) == [
        ("all", "virtio_ring"),
        ("all", "virtio"),
        ("all", "virtio_mmio"),
        ("vsock", "vsock"),
        ("vsock", "vmw_vsock_virtio_transport"),
    ]
    with pytest.raises(KernelUnusable, match="virtio_mmio needs virtio"):
        ordered({"virtio_mmio": _module("virtio")})


def test_an_initramfs_is_the_same_twice() -> None:
    modules = {"virtio_mmio": _module("")}
    first = initramfs(b"init", b"inner", modules)
    assert first == initramfs(b"init", b"inner", modules)
    assert b"070701" in gzip.decompress(first)


def test_cpio_reads_what_is_written(tmp_path: Path) -> None:
    if subprocess.run(["which", "cpio"], capture_output=True, check=False).returncode:
        pytest.skip("cpio (apt install cpio) to read the archive with")
    made = archive([Entry("a", stat.S_IFDIR | 0o755), Entry("a/b", stat.S_IFREG | 0o644, b"hello")])
    subprocess.run(["cpio", "-i", "--quiet"], input=made, cwd=tmp_path, check=True)
    assert (tmp_path / "a" / "b").read_bytes() == b"hello"


def _bzimage(payload: bytes) -> bytes:
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 0, len(payload))
    return bytes(head) + payload


def test_kernels_are_unpacked() -> None:
    elf = b"\x7fELF" + bytes(range(256)) * 50
    assert vmlinux_of(elf) == elf
    size = len(elf).to_bytes(4, "little")
    assert vmlinux_of(_bzimage(gzip.compress(elf) + size)) == elf
    # "abc", then a match that repeats itself: 12 bytes from 3 back; then five literals.
    block = b"\x78\x7fELFabc\x03\x00\x50vwxyz"
    lz4 = b"\x02!L\x18" + len(block).to_bytes(4, "little") + block
    assert vmlinux_of(_bzimage(lz4 + bytes(4))) == b"\x7fELFabc" + b"abcabcabcabc" + b"vwxyz"


@pytest.mark.parametrize(
    "kernel",
    [b"", bytes(2000), _bzimage(b"\x1f\x8brubbish"), _bzimage(b"\x02!L\x18\x03\0\0\0\x1fab" + bytes(8))],
)
def test_what_is_no_kernel_is_refused(kernel: bytes) -> None:
    with pytest.raises(KernelUnusable):
        vmlinux_of(kernel)


def test_what_is_no_package_is_refused() -> None:
    with pytest.raises(PackageUnreadable):
        list(files_of(b"!<arch>\n", lambda _: True))


def test_a_program_says_what_it_needs() -> None:
    needs = needs_of(Path("/bin/sh").resolve().read_bytes())
    assert needs is not None
    assert any(name.startswith("libc.") for name in needs.libraries)
    assert needs_of(b"#!/bin/sh") is None


def test_a_folder_is_the_same_image_twice_and_never_leads_out(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "f").write_bytes(b"x" * 5000)
    (tree / "out").symlink_to("/etc/passwd")
    images = []
    for _ in range(2):
        fd = os.memfd_create("image")
        size = write_folder_image(tree, fd)
        images.append(os.pread(fd, size, 0))
        os.close(fd)
    assert images[0] == images[1]
    assert b"/etc/passwd" in images[0]
    assert b"root:x:0" not in images[0]
    assert io.BytesIO(images[0]).getbuffer()[1024:1028] == b"\xe2\xe1\xf5\xe0"
