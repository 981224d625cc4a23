"""A small world in network namespaces: an internet, a host with egress, sandboxes on it. Nothing real is touched."""

import contextlib
import ctypes
import errno
import os
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

from tests.integration.native.jailparts import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    LIBC,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    Room,
    checked,
    mount,
    unshare,
)

INTERNET = [
    "198.51.100.1/24",
    "203.0.113.9/32",
    "10.1.2.3/32",
    "192.168.5.5/32",
    "172.16.9.9/32",
    "169.254.169.254/32",
    "100.100.100.200/32",
    "100.64.0.9/32",
    "168.63.129.16/32",
]
HOST = "198.51.100.2"


class EgressConfig(ctypes.Structure):
    _fields_ = [
        ("enabled", ctypes.c_int),
        ("range", ctypes.c_char * 20),
        ("allowed", (ctypes.c_char * 20) * 32),
        ("allowed_count", ctypes.c_uint32),
        ("denied", (ctypes.c_char * 20) * 32),
        ("denied_count", ctypes.c_uint32),
    ]


class EgressLink(ctypes.Structure):
    _fields_ = [
        ("netns_fd", ctypes.c_int),
        ("number", ctypes.c_uint32),
        ("address", ctypes.c_char * 16),
        ("gateway", ctypes.c_char * 16),
    ]


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def connect(address: str, port: int, timeout_s: float = 3.5) -> str:
    """'connected', or what stood in the way."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            client.connect((address, port))
            return "connected as " + client.recv(100).decode()
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return errno.errorcode[error.errno or 0]


def ask_udp(address: str, port: int) -> str:
    """The answer to one of three questions: the first may meet a link that is just coming up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.connect((address, port))
        for _ in range(3):
            try:
                client.send(b"?")
                return client.recv(100).decode()
            except TimeoutError:
                continue
            except OSError as error:
                return errno.errorcode[error.errno or 0]
    return "timeout"


def serve_tcp(port: int) -> bool:
    """Tells every peer the address it was seen with."""
    server = socket.create_server(("0.0.0.0", port))

    def loop() -> None:
        while True:
            client, peer = server.accept()
            with contextlib.suppress(OSError), client:
                client.sendall(peer[0].encode())

    threading.Thread(target=loop, daemon=True).start()
    return True


def answer_udp(server: socket.socket) -> None:
    def loop() -> None:
        while True:
            _, peer = server.recvfrom(100)
            server.sendto(peer[0].encode(), peer)

    threading.Thread(target=loop, daemon=True).start()


def serve_udp(address: str, port: int) -> bool:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((address, port))
    answer_udp(server)
    return True


NETWORK_ACTIONS = {
    "connect": connect,
    "ask_udp": ask_udp,
    "serve_tcp": serve_tcp,
    "serve_udp": serve_udp,
    "ip": ip,
}


def internet() -> Room:
    """Everything that is not this host, the private networks behind it included."""
    return Room(lambda: unshare(CLONE_NEWNET), NETWORK_ACTIONS)


def sandbox() -> Room:
    """Network and user namespace as the jail makes them: the network belongs to the user namespace."""

    outer_uid = os.geteuid()

    def enter() -> None:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        Path("/proc/self/uid_map").write_text(f"0 {outer_uid} 1")

    return Room(enter, NETWORK_ACTIONS)


class Host:
    """Runs inside the host's room: egress as the jail drives it."""

    def __init__(self, library: Path, resolv_conf: Path) -> None:
        self._path, self._resolv_conf = library, resolv_conf
        self.links: dict[int, EgressLink] = {}

    def enter(self) -> None:
        unshare(CLONE_NEWNET | CLONE_NEWNS)
        mount("none", "/", MS_REC | MS_PRIVATE)
        mount(str(self._resolv_conf), os.path.realpath("/etc/resolv.conf"), MS_BIND)
        self.enter_here()

    def enter_here(self) -> None:
        self._library = ctypes.CDLL(str(self._path), use_errno=True)
        self._library.egress_error.restype = ctypes.c_char_p

    def wire(self, internet_pid: int) -> bool:
        """The host's one uplink, and everything else behind it."""
        ip("link", "set", "lo", "up")
        ip("link", "add", "up0", "type", "veth", "peer", "name", "wan", "netns", str(internet_pid))
        ip("addr", "add", f"{HOST}/24", "dev", "up0")
        ip("link", "set", "up0", "up")
        enter = ["nsenter", f"--net=/proc/{internet_pid}/ns/net", "ip"]
        for address in INTERNET:
            device = "wan" if address.endswith("/24") else "lo"
            subprocess.run([*enter, "addr", "add", address, "dev", device], check=True)
        for device in ("lo", "wan"):
            subprocess.run([*enter, "link", "set", device, "up"], check=True)
        ip("route", "add", "default", "via", "198.51.100.1")
        return True

    def _ok(self, result: int) -> int:
        if result < 0:
            raise RuntimeError(self._library.egress_error().decode())
        return result

    def open(
        self, allowed: list[str] | None = None, denied: list[str] | None = None, range_: str = ""
    ) -> int:
        config = EgressConfig(enabled=1, range=range_.encode())
        for names, ranges in (("allowed", allowed or []), ("denied", denied or [])):
            setattr(config, f"{names}_count", len(ranges))
            for i, text in enumerate(ranges):
                getattr(config, names)[i].value = text.encode()
        return self._ok(self._library.egress_open(ctypes.byref(config)))

    def attach(self, pid: int) -> list[str]:
        link = EgressLink()
        self._ok(self._library.egress_take(ctypes.byref(link)))
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._ok(self._library.egress_attach(ctypes.byref(link), namespace))
        finally:
            os.close(namespace)
        self.links[pid] = link
        return [link.address.decode(), link.gateway.decode()]

    def give(self, pid: int) -> bool:
        self._library.egress_give(ctypes.byref(self.links.pop(pid)))
        return True

    def tick(self) -> int:
        self._library.egress_tick()
        return self._library.egress_pending()

    def close(self) -> bool:
        self._library.egress_close()
        return True

    def resolv_conf(self) -> str:
        text = ctypes.create_string_buffer(512)
        self._ok(self._library.egress_resolv_conf(text, len(text)))
        return text.value.decode()

    def forward_dns(self) -> int:
        """Serves the sockets the jail hands over, as the DNS forwarder will."""
        udp, tcp = ctypes.c_int(), ctypes.c_int()
        needed = self._ok(self._library.egress_dns_sockets(ctypes.byref(udp), ctypes.byref(tcp)))
        if needed:
            server = socket.socket(fileno=udp.value)
            server.setblocking(True)
            answer_udp(server)
            self._tcp = socket.socket(fileno=tcp.value)
        return needed

    def read(self, path: str) -> str:
        return Path(path).read_text()

    def rules(self) -> str:
        return subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout

    def room(self) -> Room:
        actions: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "wire", "open", "attach", "give", "tick", "close", "resolv_conf", "forward_dns", "read", "rules",
            )
        }  # fmt: skip
        return Room(self.enter, {**NETWORK_ACTIONS, **actions})


def enter_namespace(pid: int) -> None:
    with open(f"/proc/{pid}/ns/net") as namespace:
        checked(LIBC.setns(namespace.fileno(), CLONE_NEWNET))
