"""Freezes, thaws and kills a sandbox by one write each, on cgroup v2, v1, and without a freezer."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from stoker.sandbox.container_launch import InitOperation, encode_order
from stoker.sandbox.container_protocol import Handle

FREEZE_DEADLINE_S = 2.0
"""What has not frozen by then (it waits for a file system, say) is killed."""


class Freezer:
    """Owns the freeze, kill and events descriptors of one sandbox.

    Writes fail only when the control group is gone already, and then there is nobody left to freeze.
    """

    def __init__(
        self, handles: dict[Handle, int], control: socket.socket, on_deadline: Callable[[], None]
    ) -> None:
        self._freeze_fd = handles.get(Handle.FREEZE)
        self._kill_fd = handles.get(Handle.KILL)
        self._events_fd = handles.get(Handle.EVENTS)
        self._v1 = self._freeze_fd is not None and self._events_fd is None
        self._control = control
        self._on_deadline = on_deadline
        self._timer: asyncio.TimerHandle | None = None

    def adopt(self, handles: dict[Handle, int]) -> None:
        """The sandbox is in another control group now, unfrozen: descriptors of the old one are of no use."""
        self.close()
        self._freeze_fd = handles.get(Handle.FREEZE)
        self._kill_fd = handles.get(Handle.KILL)
        self._events_fd = handles.get(Handle.EVENTS)

    def freeze(self) -> None:
        """One write; a deadline begins."""
        if self._freeze_fd is None:
            self._order(InitOperation.STOP)
            return
        _write(self._freeze_fd, b"FROZEN" if self._v1 else b"1")
        self._cancel()
        self._timer = asyncio.get_running_loop().call_later(FREEZE_DEADLINE_S, self._check)

    def thaw(self) -> None:
        """One write."""
        self._cancel()
        if self._freeze_fd is None:
            self._order(InitOperation.CONTINUE)
        else:
            _write(self._freeze_fd, b"THAWED" if self._v1 else b"0")

    def kill(self) -> None:
        """One write where there is cgroup.kill; elsewhere the init goes when its socket ends."""
        self._cancel()
        if self._kill_fd is not None:
            _write(self._kill_fd, b"1")
            return
        self.thaw()  # SIGKILL does not reach what v1 froze
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """The sandbox ended: no deadline any more."""
        self._cancel()

    def close(self) -> None:
        """Give the descriptors back."""
        self._cancel()
        for fd in (self._freeze_fd, self._kill_fd, self._events_fd):
            if fd is not None:
                os.close(fd)
        self._freeze_fd = self._kill_fd = self._events_fd = None

    def _check(self) -> None:
        self._timer = None
        if not self._is_frozen():
            self._on_deadline()

    def _is_frozen(self) -> bool:
        fd = self._freeze_fd if self._v1 else self._events_fd
        if fd is None:
            return True
        try:
            text = os.pread(fd, 256, 0)
        except OSError:
            return True  # the group is gone
        return b"FROZEN" in text if self._v1 else b"frozen 1" in text

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _order(self, operation: InitOperation) -> None:
        with suppress(OSError):
            self._control.send(encode_order(operation))


def _write(fd: int, text: bytes) -> None:
    with suppress(OSError):
        os.write(fd, text)
