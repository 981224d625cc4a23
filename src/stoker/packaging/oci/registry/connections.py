"""Connections to registries: TLS, deadlines that hold against slow peers, addresses nobody is led to."""

import contextlib
import ipaddress
import os
import socket
import ssl
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from stoker.core.errors import StokerError

POOLS_MAX: Final = 32
IDLE_PER_HOST_MAX: Final = 4
CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 30.0
TIMEOUT: Final = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)


class AddressRefused(StokerError):
    """A registry leads to an address that it must not lead to."""


class Watch:
    """Cuts this thread's connection when a deadline passes, whatever trickles in; a context manager.

    One operation has one watch. ``cut`` may be called from any thread.
    """

    def __init__(self, within_s: float) -> None:
        self._deadline_s = time.monotonic() + within_s
        self._changed = threading.Condition()
        self._socket: socket.socket | None = None
        self._over = False
        self.passed = False
        """The deadline passed, or ``cut`` was called."""
        self.was_cut = False
        self.loopback_allowed = True
        """Whether the next hop may lead to this machine: the first may, others as the first did."""
        self.reached_loopback = False

    def __enter__(self) -> "Watch":
        _current.watch = self
        threading.Thread(target=self._run, name="stoker-registry-watch", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.watch = None
        with self._changed:
            self._over = True
            self._let_go()
            self._changed.notify()

    def until(self, deadline_s: float) -> None:
        """Move the deadline, in seconds of the monotonic clock."""
        with self._changed:
            self._deadline_s = deadline_s
            self._changed.notify()

    def cut(self) -> None:
        """Give up now."""
        self.was_cut = True
        self.until(0)

    def begin_hops(self) -> None:
        """The next address is the registry's own."""
        self.loopback_allowed, self.reached_loopback = True, False

    def first_hop_done(self) -> None:
        """From now on this machine may be reached only if it was reached before."""
        self.loopback_allowed = self.reached_loopback

    def attach(self, opened: socket.socket) -> None:
        """Watch this connection from now on.

        Raises:
            AddressRefused: nobody may be led there.
            TimeoutError: the deadline passed before.
        """
        self._check(opened)
        with self._changed:
            if self.passed:
                raise TimeoutError("too late")
            self._let_go()
            # A descriptor of its own: TLS takes the other one over, and it may be closed meanwhile.
            self._socket = socket.socket(fileno=os.dup(opened.fileno()))
            self._changed.notify()

    def _check(self, opened: socket.socket) -> None:
        address = ipaddress.ip_address(opened.getpeername()[0].partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if address.is_link_local or address.is_multicast or address.is_unspecified:
            raise AddressRefused(f"{address} is an address that no registry has")
        if address.is_loopback:
            if not self.loopback_allowed:
                raise AddressRefused("it leads to this machine's loopback")
            self.reached_loopback = True

    def _let_go(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _run(self) -> None:
        with self._changed:
            while not self._over:
                left_s = self._deadline_s - time.monotonic()
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
                self.passed = True
                if self._socket is not None:
                    with contextlib.suppress(OSError):
                        self._socket.shutdown(socket.SHUT_RDWR)
                    self._let_go()
                self._changed.wait()


class _Current(threading.local):
    watch: Watch | None = None


_current = _Current()


def _watch(connection: Any) -> None:
    if _current.watch is not None and connection.sock is not None:
        _current.watch.attach(connection.sock)


class _Watched(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        opened = super()._new_conn()
        if _current.watch is not None:
            try:
                _current.watch.attach(opened)
            except AddressRefused:
                opened.close()
                raise
        return opened

    def request(self, *arguments: Any, **options: Any) -> None:
        # A connection from the pool was opened by another operation.
        _watch(self)
        super().request(*arguments, **options)


class _WatchedTls(_Watched, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls: Any = _Watched


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls: Any = _WatchedTls


def connection_pools(ca_file: Path | None) -> urllib3.PoolManager:
    """Pools that retry nothing and follow nothing by themselves.

    Raises:
        OSError: the certificates cannot be read.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    pools = urllib3.PoolManager(
        num_pools=POOLS_MAX, maxsize=IDLE_PER_HOST_MAX, block=False, ssl_context=context, retries=False
    )
    schemes: Any = {"http": _Pool, "https": _TlsPool}
    pools.pool_classes_by_scheme = schemes
    return pools
