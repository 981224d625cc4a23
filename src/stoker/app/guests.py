"""What micro-VMs boot from, for commands: built, listed and checked. Starts nothing."""

import os
from collections.abc import Callable
from pathlib import Path

from stoker.app.launch import service_identity
from stoker.app.native import native_directory
from stoker.core.configuration import Settings
from stoker.packaging.guest.guests import Guest, Guests
from stoker.packaging.guest.kernel_package import fetch


def build_guest(
    data: Path, *, kernel: str, sha256: str, root: Path | None, on_step: Callable[[str], None]
) -> Guest:
    """Build the guest that VMs boot from the next start on. Blocking, some seconds.

    Raises:
        StokerError, OSError: nothing changed.
    """
    native = native_directory()
    content, name = fetch(kernel, sha256)
    owner = _owner(data)
    guest = Guests(data).build(
        content,
        kernel_name=name,
        init=native / "stoker-guest",
        function_init=native / "stoker-init",
        root=root,
        on_step=on_step,
    )
    if owner is not None:
        for path in (data, *(data / "guests").rglob("*"), data / "guests"):
            os.chown(path, *owner, follow_symlinks=False)
    return guest


def _owner(data: Path) -> tuple[int, int] | None:
    """Root builds for the service's account: a data folder of root's is none that the service accepts."""
    if os.geteuid() != 0:
        return None
    status = os.stat(data) if data.exists() else None
    if status is not None and status.st_uid:
        return status.st_uid, status.st_gid
    return service_identity(Settings())


def built_guests(data: Path) -> tuple[str, list[Guest]]:
    """The version that VMs boot, and every guest.

    Raises:
        GuestUnusable: the lock file is damaged.
    """
    lock = Guests(data).lock()
    return lock.current, list(lock.guests.values())


def verified_guest(data: Path, version: str = "") -> Guest:
    """Raises GuestUnusable: there is none, or a byte of it changed."""
    return Guests(data).verified(version)
