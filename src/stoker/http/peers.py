"""Who is at the other end of a connection: its address, Unix credentials, TLS certificate."""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

import msgspec

from stoker.http.messages import Request

ExtraInfo = Callable[[str], Any]
_UCRED = struct.Struct("3i")


class Credentials(msgspec.Struct, frozen=True):
    """The process that connected to a Unix socket, as the kernel vouches for it (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


def unix_credentials(request: Request) -> Credentials | None:
    """Who sent ``request``; None unless it came over a Unix socket."""
    seen = request.extra_info("socket")
    if seen is None or seen.family != socket.AF_UNIX:
        return None
    with socket.socket(fileno=os.dup(seen.fileno())) as duplicate:
        raw = duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Credentials(*_UCRED.unpack(raw))


def certificate_names(request: Request) -> frozenset[str]:
    """The DNS and URI subject alternative names of the client's verified certificate; empty without one."""
    certificate = cast("dict[str, Any]", request.extra_info("peercert") or {})
    names = cast("tuple[tuple[str, str], ...]", certificate.get("subjectAltName", ()))
    return frozenset(name for kind, name in names if kind in ("DNS", "URI"))


def peer_name(transport: asyncio.BaseTransport) -> str:
    """``host:port`` of a TCP peer, ``unix`` otherwise."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        parts = cast("tuple[object, ...]", name)
        if len(parts) >= 2:
            return host_port(str(parts[0]), parts[1])
    return "unix"


def host_port(host: str, port: object) -> str:
    """``host:port``, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
