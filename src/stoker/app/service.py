"""The service process: opens the cellar, wires the rooms, serves until a signal, closes in reverse."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from socket import socket
from typing import Any

import msgspec
import structlog

from stoker.api.dispatch import Api
from stoker.api.errors import http_error_body
from stoker.app.admin_server import AdminServer
from stoker.app.cellar import MEGABYTE, Cellar, open_cellar
from stoker.app.configuration import ConfigurationError, listen_address
from stoker.app.frontends import FrontEnds
from stoker.app.frontends_offer import Offer, make_api, make_front_ends
from stoker.app.image_admin import LocalImageAdmin
from stoker.app.metrics import Metrics, Sources
from stoker.app.rooms import Rooms, wire_rooms
from stoker.app.tls import tls_context
from stoker.app.unsigned import unsigned_pages
from stoker.app.vms import VM_ISOLATIONS, open_vms
from stoker.core.access import Access
from stoker.core.clock import SystemClock
from stoker.core.configuration import Settings
from stoker.http.limits import ServerLimits
from stoker.http.server import HttpServer
from stoker.packaging.oci.importing import ImageImporter
from stoker.runtimes.catalog import RuntimeUnavailable
from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.dns_forwarder import DnsForwarder
from stoker.sandbox.dns_resolvers import Resolvers
from stoker.sandbox.driver import DriverInfo, SandboxDriver
from stoker.sandbox.firecracker.driver import FirecrackerDriver
from stoker.sandbox.guarded import GuardedDriver
from stoker.services.admin import HostReport
from stoker.services.keys import KeysReport
from stoker.services.queue import QueueReport
from stoker.services.worker import SandboxStatus
from stoker.worker.logs_operations import LogsOperations
from stoker.worker.logstore.disk import LogStoreLimits
from stoker.worker.logstore.store import FileLogStore

DRAIN_S = 20.0
"""How long requests and sandboxes have to finish after SIGTERM."""
SERVICE_API_LIMITS = ServerLimits(max_connections=16)
"""For the listener inside each sandbox: its peer is the function."""

_log = structlog.get_logger("stoker.app")


class Service:
    """One embedded Stoker. ``open``, then ``serve``; the stack given to ``open`` closes it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._dns = DnsForwarder(Resolvers())
        self._driver = ContainerDriver(Path(_jail_socket()), self._dns.serve)
        self._api: Api | None = None
        self._front_ends: FrontEnds | None = None
        self._vms: FirecrackerDriver | None = None
        self._info = DriverInfo("container")
        self._background: set[asyncio.Task[None]] = set()

    async def open(self, stack: AsyncExitStack) -> None:
        """Start everything; the API listens last, so that /ready means ready."""
        settings = self._settings
        cellar = await open_cellar(settings, self._clock, self._driver.mounter, stack)
        logs = await FileLogStore.open(
            Path(settings.data) / "logs",
            self._clock,
            LogStoreLimits(total_bytes=settings.log_capacity_mb * MEGABYTE),
        )
        stack.push_async_callback(logs.close)
        driver = GuardedDriver(await self._isolating(stack))
        stack.push_async_callback(self._dns.close)
        self._info = await driver.start()
        stack.push_async_callback(driver.close)
        if not self._info.pools:
            settings = msgspec.structs.replace(settings, pool_memory_mb=0, pool_runtimes="")
        rooms = wire_rooms(
            settings,
            cellar,
            self._clock,
            driver,
            logs,
            self._serve_service_api,
            zygotes=settings.zygotes and self._info.zygotes,
        )
        cellar.images.on_mount_lost.append(self._driver.kill_users)  # also what is in the making
        await asyncio.to_thread(rooms.runtimes.available)
        await _start_rooms(rooms, stack)
        await cellar.rotation.start()
        stack.push_async_callback(cellar.rotation.close)
        await self._listen(self._offer(cellar, rooms, logs), cellar, rooms, stack)
        self._announce()

    async def _isolating(self, stack: AsyncExitStack) -> SandboxDriver:
        if self._settings.isolation in VM_ISOLATIONS:
            vms = await open_vms(self._settings, self._driver, stack)
            if isinstance(vms, FirecrackerDriver):
                self._vms = vms
            return vms
        return self._driver

    def _offer(self, cellar: Cellar, rooms: Rooms, logs: FileLogStore) -> Offer:
        metrics = Metrics(
            Sources(
                worker=lambda: rooms.worker.statistics,
                pool=rooms.manager.statistics,
                frontend=rooms.frontend.statistics,
                events=rooms.poller.statistics,
                deliveries=rooms.deliveries.statistics,
                mappings=rooms.mappings.statistics,
                streams=rooms.mappings.stream_statistics,
                logs=logs.losses,
                keys=cellar.rotation.statistics,
                collecting=cellar.images.collecting.statistics,
                image_alarms=lambda: cellar.images.alarms,
                kms=cellar.kms.statistics,
                code_cache=cellar.code.cache,
                code_jobs=cellar.code.compiling,
                volumes=cellar.images.volumes,
                volume_restarts=cellar.images.volume_restarts,
                chunks=cellar.images.chunks,
                vms=lambda: self._vms.statistics() if self._vms else None,
                front_ends=lambda: self._front_ends.statistics() if self._front_ends else None,
            )
        )
        return Offer(
            credentials=cellar.credentials,
            frontend=rooms.frontend,
            urls=rooms.urls,
            handlers=rooms.identity.guarded(
                {
                    "lambda": rooms.control.operations(),
                    "logs": LogsOperations(logs, self._clock).operations(),
                    **rooms.identity.operations(),
                }
            ),
            pages=unsigned_pages(lambda: self._trouble(cellar), metrics.render),
            find_code=rooms.control.code_download,
            spool_directory=str(_made(Path(self._settings.data) / "spool")),
        )

    def _trouble(self, cellar: Cellar) -> str:
        """What strangers are told at /ready: nothing of buckets and hosts."""
        if not self._driver.connected:
            return "no sandbox can be made now"
        return "the object store does not answer since the start" if cellar.stored.trouble else ""

    async def _listen(self, offer: Offer, cellar: Cellar, rooms: Rooms, stack: AsyncExitStack) -> None:
        settings = self._settings
        self._api = make_api(offer, settings, self._clock, stack)
        admin = AdminServer(
            _AdminService(self, cellar, rooms), self._image_admin(cellar), frozenset({0, os.getuid()})
        )
        await admin.start(_made(Path(settings.data) / "run") / "admin.sock")
        stack.push_async_callback(admin.close)
        tls = tls_context(settings.tls_certificate, settings.tls_key)
        if settings.frontends > 1:
            self._front_ends = make_front_ends(offer, settings)
            stack.push_async_callback(self._front_ends.close, DRAIN_S)
            front_ends = self._front_ends
            ring = offer.credentials
            cellar.user_keys.on_changed(lambda: front_ends.tell_keys(ring.keys, ring.session_keys))
            cellar.credentials.on_session_keys(lambda keys: front_ends.tell_keys(ring.keys, keys))
            await self._front_ends.start()
            return
        server = HttpServer(self._api, error_body=http_error_body)
        await server.start_tcp(*listen_address(settings), tls)
        stack.push_async_callback(server.close, DRAIN_S)

    def _image_admin(self, cellar: Cellar) -> LocalImageAdmin:
        imported = cellar.images.imported
        return LocalImageAdmin(
            ImageImporter(cellar.images.store, imported, self._clock),
            imported,
            _made(Path(self._settings.data) / "spool"),
            cellar.images.unavailable,
        )

    async def _serve_service_api(self, listening: socket) -> Callable[[], None]:
        assert self._api is not None
        server = HttpServer(self._api, SERVICE_API_LIMITS, error_body=http_error_body)
        await server.start_socket(listening)
        return lambda: self._spawn(server.close(0.0))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    @property
    def endpoint(self) -> str:
        """How clients on this host reach the API."""
        if self._settings.public_url:
            return self._settings.public_url
        host, port = listen_address(self._settings)
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
        return f"{'https' if self._settings.tls_certificate else 'http'}://{shown}:{port}"

    @property
    def settings(self) -> Settings:
        """What it was started with."""
        return self._settings

    @property
    def driver_info(self) -> DriverInfo:
        """What the driver can enforce here."""
        return self._info

    def _announce(self) -> None:
        _log.info("serving", endpoint=self.endpoint, account=self._settings.account, data=self._settings.data)
        for missing in self._info.degraded:
            _log.warning("degraded", what=missing)


class _AdminService:
    """The Admin port over a running service."""

    def __init__(self, service: Service, cellar: Cellar, rooms: Rooms) -> None:
        self._service = service
        self._cellar = cellar
        self._rooms = rooms

    def access(self) -> Access:
        root = self._cellar.credentials.root
        settings = self._service.settings
        return Access(
            endpoint=self._service.endpoint,
            account=settings.account,
            region=settings.region,
            access_key_id=root.access_key_id,
            secret_access_key=root.secret,
        )

    def host(self) -> HostReport:
        info = self._service.driver_info
        return HostReport(
            version=version("stoker"),
            driver=info.name,
            degraded=(*info.degraded, *self._rooms.worker.troubles(), *self._cellar.stored.troubles()),
            runtimes=tuple(runtime.name for runtime in self._rooms.runtimes.available()),
            data=self._service.settings.data,
        )

    def sandboxes(self) -> list[SandboxStatus]:
        return self._rooms.worker.sandboxes()

    async def events(self) -> QueueReport:
        return await self._cellar.queue.report()

    async def keys(self) -> KeysReport:
        return await self._cellar.rotation.report()

    async def rotate_keys(self) -> KeysReport:
        return await self._cellar.rotation.rotate()

    async def retire_keys(self, *, end_sessions: bool) -> KeysReport:
        return await self._cellar.rotation.retire(end_sessions=end_sessions)


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        await Service(settings).open(stack)
        await stop.wait()
        _log.info("stopping")


async def _start_rooms(rooms: Rooms, stack: AsyncExitStack) -> None:
    stack.push_async_callback(rooms.worker.close, DRAIN_S / 2)
    stack.push_async_callback(rooms.manager.close, 1.0)
    await rooms.objects.start()
    try:
        await rooms.worker.warm()
    except RuntimeUnavailable as problem:
        raise ConfigurationError(f"configuration: pool_runtimes: {problem}") from problem
    await rooms.identity.start()
    await rooms.control.start()
    stack.push_async_callback(rooms.control.close)
    stack.push_async_callback(rooms.frontend.close, DRAIN_S / 2)
    await rooms.mappings.start()
    stack.push_async_callback(rooms.mappings.close, DRAIN_S / 2)
    rooms.deliveries.start()
    stack.push_async_callback(rooms.deliveries.close)
    rooms.poller.start()
    stack.push_async_callback(rooms.poller.close, DRAIN_S / 2)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _jail_socket() -> str:
    named = os.environ.get("STOKER_JAIL_SOCKET")
    if not named:
        raise ConfigurationError("STOKER_JAIL_SOCKET is not set: the service is started by stoker up")
    return named
