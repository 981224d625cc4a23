"""The command line of one VM, as QEMU sees its files inside the jail's sandbox. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from stoker.sandbox.driver import Launch, SandboxLimits
from stoker.sandbox.guest.contract import KERNEL_ARGUMENTS, SERIAL_NAME, Place

PROGRAM: Final = "/usr/bin/qemu-system-x86_64"
BOX_INSIDE: Final = "/var/task"
"""Where the VM's own files are: its block devices by the names of their places."""
GUEST_INSIDE: Final = "/var/runtime"
"""Where the guest's kernel and initramfs are."""
ROOT_FILE: Final = "root.erofs"
"""Beside them: the root of all that bring none."""
LINK_NAME: Final = "stoker-runtime"
"""The jail's abstract socket, which carries the guest's channels here instead of a runtime's requests."""

GUEST_OVERHEAD_MB: Final = 112
"""What the guest's kernel needs beside the function's memory."""
VMM_OVERHEAD_MB: Final = 256
"""What QEMU needs beside the VM's memory: translated code above all."""
TMP_OVERHEAD_MB: Final = 64
TRANSLATED_MB: Final = 64
VMM_THREADS_MAX: Final = 256


def vm_memory_mb(function_mb: int) -> int:
    """What the VM has, for a function of that much memory."""
    return function_mb + GUEST_OVERHEAD_MB


def outer_limits(limits: SandboxLimits) -> SandboxLimits:
    """What the VMM may use, for what the function may: never less than a core, emulated as it is."""
    quota = max(limits.cpu_quota, 1.0) if limits.cpu_quota > 0 else limits.cpu_quota
    return msgspec.structs.replace(
        limits,
        memory_mb=vm_memory_mb(limits.memory_mb) + VMM_OVERHEAD_MB,
        cpu_quota=quota,
        tmp_mb=limits.tmp_mb + TMP_OVERHEAD_MB,
        pids_max=VMM_THREADS_MAX,
        open_files_max=1024,
    )


def vm_launch(*, memory_mb: int, host_khz: int, link: str = "serial", network: bool = False) -> Launch:
    """How QEMU is started: no default device, no monitor, no display, its own system call filter on top."""
    arguments: list[str] = [PROGRAM]
    for option in (
        # pit=off and pic=off hang the kernel; without acpi=on it finds no device.
        ("-M", "microvm,acpi=on,isa-serial=off"),
        ("-accel", f"tcg,thread=single,tb-size={TRANSLATED_MB}"),
        ("-cpu", "max"),
        ("-m", f"{memory_mb}M"),
        ("-nodefaults", "-no-user-config", "-nographic", "-no-reboot"),
        ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        ("-kernel", f"{GUEST_INSIDE}/kernel", "-initrd", f"{GUEST_INSIDE}/initramfs"),
        ("-append", kernel_line(host_khz, link)),
        ("-chardev", f"socket,id=link,path={LINK_NAME},abstract=on,tight=on"),
        ("-device", "virtio-serial-device,max_ports=2"),
        ("-device", f"virtserialport,chardev=link,name={SERIAL_NAME}"),
        *_drives(Place),
        *_network(network),
    ):
        arguments.extend(option)
    return Launch(tuple(arguments), ENVIRONMENT, "/tmp")


ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": "/usr/bin:/bin", "TMPDIR": "/tmp/.", "HOME": "/tmp"}
"""What the guest writes to its scratch device goes to a file below TMPDIR, within the sandbox's quota. QEMU
takes /var/tmp, which is not there, for exactly "/tmp"."""


def kernel_line(host_khz: int, link: str) -> str:
    """``host_khz``: the rate of the host's clock counter, 0 when unknown. A guest that has to measure it
    hangs when the host is busy."""
    rate = f" tsc_early_khz={host_khz}" if host_khz else ""
    return f"{KERNEL_ARGUMENTS} no_timer_check{rate} stoker.link={link}"


def _drives(places: Sequence[Place] | type[Place]) -> list[tuple[str, ...]]:
    """The devices in the contract's order. Scratch alone is written: to a temporary layer over its file."""
    options: list[tuple[str, ...]] = []
    for place in places:
        access = "snapshot=on" if place is Place.SCRATCH else "readonly=on,file.locking=off"
        file = f"{BOX_INSIDE}/{file_name(place)}"
        options.append(("-drive", f"id={file_name(place)},if=none,format=raw,{access},file={file}"))
        options.append(("-device", f"virtio-blk-device,drive={file_name(place)}"))
    return options


def _network(network: bool) -> list[tuple[str, ...]]:
    """QEMU's own NAT, inside the sandbox's network namespace: the jail's rules of egress hold around it."""
    if not network:
        return []
    return [("-netdev", "user,id=egress,ipv6=off"), ("-device", "virtio-net-device,netdev=egress")]


def file_name(place: Place) -> str:
    """The file of a place in its VM's folder."""
    return place.name.lower().replace("_", "-")
