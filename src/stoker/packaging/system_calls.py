"""What each confined process may ask the kernel for, once it has started: data only, one reason a theme.

A call listed nowhere is refused with EPERM. Numbers are those of x86_64 and of aarch64, None where that
lacks the call.
"""

import mmap
import os
import resource
from collections.abc import Mapping
from typing import Final

import msgspec

from stoker.packaging.unpack import FOLDER_FLAGS, NEW_FILE_FLAGS

_WHOLE: Final = 0xFFFFFFFF
_LARGE_FILE: Final = (0x8000 | 0x20000) & ~os.O_NOFOLLOW
"""What some C libraries add to every open; aarch64 has these two bits the other way round."""
_THREAD: Final = 0x00010900
"""CLONE_VM, CLONE_SIGHAND and CLONE_THREAD: not a process."""
_NEW_NAMESPACES: Final = 0x7E020080
_AT_EMPTY_PATH: Final = 0x1000
_F_DUPFD_CLOEXEC: Final = 1030
_F_GETFD, _F_SETFD, _F_GETFL = 1, 2, 3


class Condition(msgspec.Struct, frozen=True):
    """On 32 bits of a call's arguments: bits of ``mask`` are one of ``values``.

    ``word`` counts halves: 2n is the low half of argument n, which is all the kernel reads of an int.
    """

    word: int
    values: tuple[int, ...]
    mask: int = _WHOLE


Conditions = tuple[Condition, ...]
Rules = Mapping[str, Conditions]


def _always(names: str) -> dict[str, Conditions]:
    return dict.fromkeys(names.split(), ())


_NOT_EXECUTABLE: Final = (Condition(2 * 2, (0,), mmap.PROT_EXEC),)
"""Memory that runs was there before the first hostile byte."""

_ALL: Final[Rules] = {
    # Descriptors there are; none is opened by these.
    **_always("read write readv writev pread64 pwrite64 preadv preadv2 lseek close fstat ftruncate"),
    # How some C libraries ask for the size of a descriptor; a path would tell sizes and times, never content.
    "newfstatat": (Condition(2 * 3, (_AT_EMPTY_PATH,)),),
    "fcntl": (Condition(2 * 1, (_F_DUPFD_CLOEXEC, _F_GETFD, _F_SETFD, _F_GETFL)),),
    # The socket to the service, which is there from the start.
    **_always("recvmsg recvfrom sendmsg sendto"),
    # Memory: never executable.
    **_always("munmap mremap brk madvise"),
    "mmap": _NOT_EXECUTABLE,
    "mprotect": _NOT_EXECUTABLE,
    # Threads that run, signals to itself that arrive, the end.
    **_always("futex sched_yield gettid getpid rseq set_robust_list restart_syscall exit exit_group"),
    **_always("rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack"),
    # Clocks and randomness.
    **_always("clock_gettime gettimeofday clock_nanosleep nanosleep getrandom"),
}

PACKER: Final[Rules] = {
    **_ALL,
    # The next job's seconds of processor time.
    "getrusage": (),
    "prlimit64": (Condition(2 * 0, (0,)), Condition(2 * 1, (resource.RLIMIT_CPU,))),
    # Unpacking: folders are opened, files made anew; nothing that is there can be read or changed.
    "openat": (Condition(2 * 2, (FOLDER_FLAGS, NEW_FILE_FLAGS), _WHOLE & ~_LARGE_FILE),),
    **_always("mkdirat symlinkat fchmod"),
    "utimensat": (Condition(2 * 1, (0,)), Condition(2 * 1 + 1, (0,))),  # of a descriptor, not of a path
}

FLATTENER: Final[Rules] = {
    **_ALL,
    "clone": (Condition(2 * 0, (_THREAD,), _THREAD | _NEW_NAMESPACES),),
    **_always("sched_getaffinity sched_getparam sched_getscheduler"),  # what starting a thread asks
}

VOLUME_SERVER: Final[Rules] = {
    **_ALL,
    # Its threads run already; it waits for devices, the service and them.
    **_always("epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll"),
}

FALLS_BACK: Final = ("clone3",)
"""Answers ENOSYS: its flags hide behind a pointer, and libc then takes ``clone``."""

FATAL: Final = (
    # Nothing in these processes asks for one of these by mistake: something took the process over.
    *("execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev"),
    *("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4"),
    *("mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsmount"),
    *("unshare", "setns", "open_by_handle_at", "memfd_create", "userfaultfd", "pidfd_open", "pidfd_getfd"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "perf_event_open"),
    *("add_key", "request_key", "keyctl", "init_module", "finit_module", "kexec_load"),
)
"""End the process at once."""

NUMBERS: Final[Mapping[str, tuple[int | None, int | None]]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "bind": (49, 200),
    "listen": (50, 201),
    "socketpair": (53, 199),
    "clone": (56, 220),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "exit": (60, 93),
    "fcntl": (72, 25),
    "ftruncate": (77, 46),
    "fchmod": (91, 52),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "ptrace": (101, 117),
    "sigaltstack": (131, 132),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "mount": (165, 40),
    "umount2": (166, 39),
    "init_module": (175, 105),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "epoll_wait": (232, None),
    "epoll_ctl": (233, 21),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "newfstatat": (262, 79),
    "symlinkat": (266, 36),
    "ppoll": (271, 73),
    "unshare": (272, 97),
    "set_robust_list": (273, 99),
    "utimensat": (280, 88),
    "epoll_pwait": (281, 22),
    "accept4": (288, 242),
    "preadv": (295, 69),
    "perf_event_open": (298, 241),
    "prlimit64": (302, 261),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "finit_module": (313, 273),
    "getrandom": (318, 278),
    "memfd_create": (319, 279),
    "bpf": (321, 280),
    "execveat": (322, 281),
    "userfaultfd": (323, 282),
    "preadv2": (327, 286),
    "rseq": (334, 293),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "pidfd_getfd": (438, 438),
    "epoll_pwait2": (441, 441),
}
