"""One VMM behind its jailer: started, found ready, given files, ended. Asks the jail, and the VMM's API.

Once a guest runs, nothing in the VMM's folder is looked up by name any more: a VMM that was taken over could
have put links there.
"""

import asyncio
import contextlib
import os
import select
import socket
import stat
from collections.abc import Sequence

from stoker.core.errors import SandboxCreateError, SandboxDied, SandboxError
from stoker.sandbox.container_connection import JailConnection, JailUnavailable
from stoker.sandbox.container_protocol import Answer, Handle, Operation
from stoker.sandbox.driver import SandboxLimits
from stoker.sandbox.firecracker import machine
from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.firecracker.api import FirecrackerApi
from stoker.sandbox.guest.contract import PORTS

READY_S = 5.0
LOOK_S = 0.001
DESTROY_WAIT_S = 12.0
LISTEN_BACKLOG = 64
WORDS_BYTES = 4096


class JailedVmm:
    """Owns every descriptor of the jail's answer. ``api`` is ready when ``start`` returns."""

    def __init__(self, answer: Answer, jail: JailConnection, version: fc.Version) -> None:
        self.handle = answer.sandbox
        self.handles = dict(answer.handles)
        self.address, self.gateway = answer.address, answer.gateway
        self.pidfd = answer.handles[Handle.PIDFD]
        self._version = version
        self._sockets = answer.handles[Handle.ROOT]
        self._words = answer.handles[Handle.OUTPUT]
        self._jail = jail
        self._api_socket = -1
        self._api: FirecrackerApi | None = None
        self.listeners: dict[int, socket.socket] = {}

    @property
    def api(self) -> FirecrackerApi:
        """The VMM's API."""
        assert self._api is not None
        return self._api

    @classmethod
    async def start(
        cls,
        jail: JailConnection,
        limits: SandboxLimits,
        files: Sequence[int],
        *,
        egress: bool,
        version: fc.Version,
    ) -> "JailedVmm":
        """Start one, and wait for its API.

        Raises:
            SandboxCreateError: it could not be; nothing is left.
        """
        try:
            answer = await jail.request(Operation.VM, limits=limits, files=files, egress=egress)
        except JailUnavailable as problem:
            raise SandboxCreateError(str(problem)) from problem
        if answer.status:
            raise SandboxCreateError(f"{answer.stage or 'starting a VM'}: {os.strerror(-answer.status)}")
        vmm = cls(answer, jail, version)
        try:
            await vmm._find_api()
            vmm._listen()
        except BaseException:
            await vmm.destroy()
            raise
        return vmm

    @property
    def pid(self) -> int:
        """Of the VMM, as the host counts; 0 when it ended."""
        with open(f"/proc/self/fdinfo/{self.pidfd}") as info:
            found = [int(line.split()[1]) for line in info if line.startswith("Pid:")]
        return max(0, found[0]) if found else 0

    async def add_file(self, file: int) -> str:
        """Put one more file into its root; where the VMM sees it."""
        try:
            answer = await self._jail.request(Operation.VM_FILES, sandbox=self.handle, files=[file])
        except JailUnavailable as problem:
            raise SandboxDied(str(problem)) from problem
        if answer.status:
            raise SandboxError(f"{answer.stage or 'adding a file'}: {os.strerror(-answer.status)}")
        return machine.file_path(answer.count)

    async def limit(self, limits: SandboxLimits) -> dict[Handle, int]:
        """Change the control group's limits; fresh descriptors where it became another."""
        try:
            answer = await self._jail.request(Operation.LIMITS, sandbox=self.handle, limits=limits)
        except JailUnavailable as problem:
            raise SandboxDied(str(problem)) from problem
        if answer.status:
            raise SandboxError(f"{answer.stage or 'changing limits'}: {os.strerror(-answer.status)}")
        return answer.handles

    def open_metrics(self) -> int:
        """Make the pipe for the VMM's metrics; its non-blocking read end, the caller's."""
        os.mkfifo("metrics", dir_fd=self._sockets)
        _open_to_vmm(f"/proc/self/fd/{self._sockets}/metrics")
        return os.open("metrics", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._sockets)

    def words(self) -> str:
        """What it printed since it was asked last: why it ended, mostly."""
        with contextlib.suppress(OSError):
            return os.read(self._words, WORDS_BYTES).decode(errors="replace")
        return ""

    async def destroy(self) -> None:
        """End it and everything around it; returns when nothing is left. Idempotent."""
        if self.handle and not self._jail.closed:
            handle, self.handle = self.handle, 0
            with contextlib.suppress(JailUnavailable, TimeoutError):
                await asyncio.wait_for(self._jail.request(Operation.DESTROY, sandbox=handle), DESTROY_WAIT_S)
        await self._close()

    async def _close(self) -> None:
        if self._api is not None:
            await self._api.close()
            os.close(self._api_socket)
            self._api = None
        for listening in self.listeners.values():
            listening.close()
        self.listeners.clear()
        for handle in (Handle.PIDFD, Handle.ROOT, Handle.OUTPUT):
            if handle in self.handles:
                os.close(self.handles.pop(handle))

    async def _find_api(self) -> None:
        deadline_s = asyncio.get_running_loop().time() + READY_S
        while True:
            with contextlib.suppress(FileNotFoundError):
                self._api_socket = os.open(
                    "api.sock", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._sockets
                )
                break
            if _ended(self.pidfd) or asyncio.get_running_loop().time() > deadline_s:
                raise SandboxCreateError(f"the VMM did not come up: {self.words().strip()[-300:]}")
            await asyncio.sleep(LOOK_S)
        self._api = FirecrackerApi(f"/proc/self/fd/{self._api_socket}", self._version)
        if not stat.S_ISSOCK(os.fstat(self._api_socket).st_mode):
            raise SandboxCreateError("the VMM's API is no socket")
        await self._greet(deadline_s)

    async def _greet(self, deadline_s: float) -> None:
        """The socket is there a moment before anybody listens."""
        while True:
            try:
                await self.api.get_version()
                return
            except SandboxError as problem:
                if _ended(self.pidfd) or asyncio.get_running_loop().time() > deadline_s:
                    raise SandboxCreateError(f"the VMM's API: {problem}") from problem
            await asyncio.sleep(LOOK_S)

    def _listen(self) -> None:
        for port in PORTS:
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self.listeners[port] = listening
            path = f"/proc/self/fd/{self._sockets}/v_{port}"
            listening.bind(path)
            _open_to_vmm(path)
            listening.listen(LISTEN_BACKLOG)


def _open_to_vmm(path: str) -> None:
    """The VMM is neither this user nor of its group; the folder keeps everybody else out."""
    os.chmod(path, 0o666)  # noqa: S103  (see above)


def _ended(pidfd: int) -> bool:
    """A pidfd becomes readable when its process has ended."""
    watching = select.poll()
    watching.register(pidfd, select.POLLIN)
    return bool(watching.poll(0))
