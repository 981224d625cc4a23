"""Puts the calling process before all others of this machine, for clients that stand for another machine."""

import ctypes
import os
import struct

NICE = -20
SLICE_NS = 100_000
"""The shortest there is: who wakes with it takes the CPU from whoever has a longer one (kernel 6.12)."""

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_ATTRIBUTES = struct.Struct("<IIQiIQQQ")


def come_first() -> None:
    """A session of its own, the largest weight and the shortest slice. Needs root."""
    os.setsid()
    try:
        with open("/proc/self/autogroup", "w") as autogroup:
            autogroup.write(str(NICE))
    except FileNotFoundError:
        pass  # this kernel groups no sessions
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, NICE, 0, SLICE_NS, 0, 0)
    number = _SCHED_SETATTR[os.uname().machine]
    if ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, 0) < 0:
        raise OSError(ctypes.get_errno(), "sched_setattr")
