"""The container driver: asks stoker-jail for sandboxes over its socket.

Knows the jail's protocol; what a sandbox is and does once made is in ``container_sandbox``. It never knows
functions, and never needs a privilege of its own.
"""

import asyncio
import os
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stoker.core.errors import SandboxCreateError
from stoker.sandbox.container_connection import JailConnection, JailUnavailable
from stoker.sandbox.container_folders import open_folders
from stoker.sandbox.container_mounter import ContainerMounter
from stoker.sandbox.container_protocol import Answer, Feature, Handle, Operation
from stoker.sandbox.container_sandbox import ContainerSandbox
from stoker.sandbox.dns_forwarder import DnsSockets
from stoker.sandbox.driver import DriverInfo, SandboxSpec

RECONNECT_FIRST_S = 0.02
RECONNECT_LONGEST_S = 1.0
CREATE_WAIT_S = 5.0
"""How long a create waits for a jail that is being restarted."""


class ContainerDriver:
    """Sandboxes of stoker-jail. Reconnects when the jail restarts; what lived in the old one is dead then."""

    def __init__(
        self, socket_path: Path, on_dns_sockets: Callable[[DnsSockets | None], None] | None = None
    ) -> None:
        """``on_dns_sockets`` is told where to serve a resolver for sandboxes, and None before that closes."""
        self._path = socket_path
        self._on_dns_sockets = on_dns_sockets
        self._connection: JailConnection | None = None
        self._connected = asyncio.Event()
        self._reconnecting: asyncio.Task[None] | None = None
        self._sandboxes: set[ContainerSandbox] = set()
        self._closed = False
        self._degraded: tuple[str, ...] = ()
        self._features = Feature(0)
        self._dns_sockets: DnsSockets | None = None
        self.mounter = ContainerMounter()
        """Mounts images over the same connection: its mounts are gone when the jail is."""

    @property
    def connected(self) -> bool:
        """Whether a jail is there to make sandboxes."""
        return self._connection is not None

    async def start(self) -> DriverInfo:
        """Connect, and say what this host can enforce. A second call says it again.

        Raises:
            JailUnavailable: no jail listens, or it does not serve this user.
        """
        if self._connection is None:
            _allow_many_descriptors()
            await self._hello()
        return DriverInfo("container", self._degraded, bool(self._features & Feature.ZYGOTES))

    async def create(self, spec: SandboxSpec) -> ContainerSandbox:
        """Make an empty sandbox with its mounts.

        Raises:
            SandboxCreateError: the host refused; nothing of the sandbox is left.
        """
        making = asyncio.create_task(self._create(spec))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_discard)
            raise

    async def close(self) -> None:
        """Destroy every sandbox of this driver and disconnect."""
        self._closed = True
        if self._reconnecting:
            self._reconnecting.cancel()
        await asyncio.gather(*(sandbox.destroy() for sandbox in tuple(self._sandboxes)))
        if self._connection:
            self._connection.close()
        self.mounter.lost()
        self._close_dns()

    async def _hello(self) -> None:
        connection = JailConnection.open(self._path, self._on_lost)
        try:
            answer = await connection.request(Operation.HELLO)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._degraded = answer.degraded
        self._features = answer.features
        self._take_dns(answer)
        self.mounter.connected(connection, answer.features)
        self._connected.set()

    def _take_dns(self, answer: Answer) -> None:
        self._close_dns()
        if Handle.DNS_UDP in answer.handles:
            udp, tcp = answer.handles[Handle.DNS_UDP], answer.handles[Handle.DNS_TCP]
            self._dns_sockets = (socket.socket(fileno=udp), socket.socket(fileno=tcp))
            if self._on_dns_sockets:
                self._on_dns_sockets(self._dns_sockets)

    def _close_dns(self) -> None:
        if self._dns_sockets and self._on_dns_sockets:
            self._on_dns_sockets(None)
        for served in self._dns_sockets or ():
            served.close()
        self._dns_sockets = None

    def _on_lost(self, connection: JailConnection) -> None:
        """The jail died: its sandboxes run on without anyone to unmake them, so they end now."""
        if connection is not self._connection:
            return  # it never got to its hello, and whoever tries that tries again
        self._connection = None
        self._connected.clear()
        self._close_dns()  # the next jail binds the same address
        self.mounter.lost()
        for sandbox in tuple(self._sandboxes):
            sandbox.jail_lost()
        if not self._closed:
            self._reconnecting = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        wait_s = RECONNECT_FIRST_S
        while not self._closed:
            try:
                await self._hello()
                return
            except JailUnavailable:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RECONNECT_LONGEST_S)

    @property
    def features(self) -> Feature:
        """What the jail offers; nothing before ``start``."""
        return self._features

    @property
    def forwards_dns(self) -> bool:
        """Whether sandboxes ask the resolver at their gateway, and not the host's own."""
        return self._dns_sockets is not None

    async def jail(self) -> JailConnection:
        """The connection, for other drivers that ask the same jail: it serves one service only.

        Raises:
            SandboxCreateError: there is none, and it did not come back in time.
        """
        if self._connection is None and not self._closed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._connected.wait(), CREATE_WAIT_S)
        if self._connection is None:
            raise SandboxCreateError("the jail is not running")
        return self._connection

    async def _create(self, spec: SandboxSpec) -> ContainerSandbox:
        connection = await self.jail()
        zygote = self._zygote(spec.zygote)
        folders = open_folders(spec.mounts)
        try:
            answer = await connection.request(
                Operation.CREATE,
                limits=spec.limits,
                folders=folders,
                egress=spec.egress,
                is_zygote=spec.is_zygote,
                zygote=zygote.handle if zygote else 0,
                user=spec.user,
            )
        except JailUnavailable as problem:
            raise SandboxCreateError(str(problem)) from problem
        finally:
            for fd in folders.values():
                os.close(fd)
        if answer.status:
            raise SandboxCreateError(f"{answer.stage or 'creating'}: {os.strerror(-answer.status)}")
        sandbox = ContainerSandbox(spec, answer, connection, self._sandboxes.discard, zygote)
        self._sandboxes.add(sandbox)
        if connection.closed:  # between the answer and now
            sandbox.jail_lost()
        return sandbox

    def kill_users(self, mount_id: int) -> int:
        """Kill every sandbox that has this image: its reads fail for ever. How many there were."""
        users = [sandbox for sandbox in self._sandboxes if mount_id in sandbox.images]
        for sandbox in users:
            sandbox.kill()
        return len(users)

    def _zygote(self, sandbox_id: str) -> ContainerSandbox | None:
        if not sandbox_id:
            return None
        for sandbox in self._sandboxes:
            if sandbox.sandbox_id == sandbox_id and sandbox.is_zygote:
                return sandbox
        raise SandboxCreateError("the zygote is gone")


def _discard(making: asyncio.Task[ContainerSandbox]) -> None:
    """Nobody waits for this sandbox any more."""
    if not making.cancelled() and making.exception() is None:
        making.result().discard()


def _allow_many_descriptors() -> None:
    """A sandbox holds about a dozen."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
