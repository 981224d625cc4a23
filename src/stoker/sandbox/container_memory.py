"""Reads a sandbox's memory use from its control group, and hears when memory ran out."""

import asyncio
import os
import re
from collections.abc import Callable

from stoker.sandbox.container_protocol import Handle

OOM_LOOKS_S = (0.001, 0.005, 0.02, 0.1, 0.5)
"""cgroup v1 tells of the shortage before its victim is counted: how long after it to look, and look again."""

_OOM_KILLS = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)


class MemoryMeter:
    """Owns the memory descriptors of one sandbox; remembers the last figures when the group is gone."""

    def __init__(self, handles: dict[Handle, int], on_out_of_memory: Callable[[], None]) -> None:
        self._current_fd = handles.get(Handle.MEMORY_CURRENT)
        self._peak_fd = handles.get(Handle.MEMORY_PEAK)
        self._oom_fd = handles.get(Handle.OOM)
        self._event_fd = handles.get(Handle.OOM_EVENT)
        self._on_out_of_memory = on_out_of_memory
        self._peak_bytes = 0
        self._shared_bytes = 0
        self.limit_bytes = 0
        """What the group may use; shared pages are no reason to claim more."""
        self._oom_kills = 0
        self._looks: list[asyncio.TimerHandle] = []
        self._loop = asyncio.get_running_loop()
        if self._event_fd is not None:
            self._loop.add_reader(self._event_fd, self._on_event)

    def adopt(self, handles: dict[Handle, int]) -> None:
        """The sandbox is in another control group now. What was used before was of no function."""
        self.close()
        self._current_fd = handles.get(Handle.MEMORY_CURRENT)
        self._peak_fd = handles.get(Handle.MEMORY_PEAK)
        self._oom_fd = handles.get(Handle.OOM)
        self._event_fd = handles.get(Handle.OOM_EVENT)
        self._peak_bytes = self._oom_kills = 0
        if self._event_fd is not None:
            self._loop.add_reader(self._event_fd, self._on_event)

    def peak_bytes(self) -> int:
        """The largest use so far; where only the current use is known, the largest seen."""
        fd = self._peak_fd if self._peak_fd is not None else self._current_fd
        self._peak_bytes = max(self._peak_bytes, _number(_read(fd)))
        if not self._peak_bytes:
            return 0
        return max(self._peak_bytes, min(self._peak_bytes + self._shared_bytes, self.limit_bytes))

    def share(self, shared_bytes: int) -> None:
        """Pages of a zygote that the process inside uses: the kernel charges them to the zygote alone."""
        self._shared_bytes = shared_bytes

    def current_bytes(self) -> int:
        """Memory in use now."""
        return _number(_read(self._current_fd))

    def oom_kills(self) -> int:
        """Processes killed for want of memory."""
        found = _OOM_KILLS.search(_read(self._oom_fd))
        if found:
            self._oom_kills = max(self._oom_kills, int(found[1]))
        return self._oom_kills

    def settle(self) -> int:
        """The sandbox ended: read everything a last time. Returns ``oom_kills``."""
        self.peak_bytes()
        self._stop_listening()
        return self.oom_kills()

    def close(self) -> None:
        """Give the descriptors back."""
        self._stop_listening()
        for fd in (self._current_fd, self._peak_fd, self._oom_fd, self._event_fd):
            if fd is not None:
                os.close(fd)
        self._current_fd = self._peak_fd = self._oom_fd = self._event_fd = None

    def _on_event(self) -> None:
        """cgroup v1 tells that memory ran out here or in a group above, and that the group is being removed.

        Only a process that was killed here counts: a shortage above is not this sandbox's.
        """
        if self._event_fd is None:
            return
        os.read(self._event_fd, 8)
        self._forget_looks()
        self._looks = [self._loop.call_later(delay_s, self._look) for delay_s in OOM_LOOKS_S]

    def _look(self) -> None:
        if self.oom_kills():
            self._forget_looks()
            self._on_out_of_memory()

    def _forget_looks(self) -> None:
        for look in self._looks:
            look.cancel()
        self._looks.clear()

    def _stop_listening(self) -> None:
        if self._event_fd is not None:
            self._loop.remove_reader(self._event_fd)
        self._forget_looks()


def _read(fd: int | None) -> bytes:
    """Empty when there is no such file, or its group is gone."""
    if fd is None:
        return b""
    try:
        return os.pread(fd, 4096, 0)
    except OSError:
        return b""


def _number(text: bytes) -> int:
    return int(text) if text.strip().isdigit() else 0
