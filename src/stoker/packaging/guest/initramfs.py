"""The initramfs of a guest: its init, the container's PID 1, and the modules it loads, in order. Pure."""

import gzip
import re
import stat
from collections.abc import Iterable, Mapping

from stoker.packaging.guest.cpio import Entry, archive
from stoker.packaging.guest.vmlinux import KernelUnusable

MODULES: tuple[tuple[str, str], ...] = (
    ("all", "virtio_mmio"),
    ("all", "virtio_blk"),
    ("all", "erofs"),
    ("all", "overlay"),
    ("all", "virtio_net"),
    ("serial", "virtio_console"),
    ("vsock", "vmw_vsock_virtio_transport"),
)
"""When each is loaded (native/guest/machine.c reads that from its name), after what it depends on. What
the kernel has built in is not among its files."""

_DEPENDS = re.compile(rb"depends=([A-Za-z0-9_,-]*)\0")


def initramfs(init: bytes, function_init: bytes, modules: Mapping[str, bytes]) -> bytes:
    """The packed archive. ``modules``: every module of the kernel by name; only those needed are taken."""
    entries = [
        Entry("dev", stat.S_IFDIR | 0o755),
        Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        Entry("init", stat.S_IFREG | 0o755, init),
        Entry("stoker-init", stat.S_IFREG | 0o755, function_init),
        Entry("modules", stat.S_IFDIR | 0o755),
    ]
    for number, (when, name) in enumerate(ordered(modules)):
        entries.append(Entry(f"modules/{number:02}-{when}-{name}.ko", stat.S_IFREG | 0o644, modules[name]))
    return gzip.compress(archive(entries), compresslevel=9, mtime=0)


def ordered(modules: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """When and name of each module to load, dependencies first.

    Raises:
        KernelUnusable: one that is needed depends on one that is not there.
    """
    found: dict[str, str] = {}

    def add(when: str, name: str) -> None:
        if name in found:
            return
        for dependency in depends_of(modules[name]):
            if dependency not in modules:
                raise KernelUnusable(f"module {name} needs {dependency}, which the kernel's package lacks")
            add(when, dependency)
        found[name] = when

    for when, name in MODULES:
        if name in modules:
            add(when, name)
    return [(when, name) for name, when in found.items()]


def depends_of(module: bytes) -> list[str]:
    """What a module's own description says that it needs."""
    match = _DEPENDS.search(module)
    return [name.replace("-", "_") for name in match[1].decode().split(",") if name] if match else []


def named(paths: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    """Modules by their name, from their paths."""
    return {path.rpartition("/")[2].removesuffix(".ko").replace("-", "_"): code for path, code in paths}
