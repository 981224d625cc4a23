"""A host of the test's own in network and mount namespaces, an internet behind it, and Stokers that run on it.

The test process itself moves in and back out. Nothing of the real host's network is touched.
"""

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.integration.egress.fake_resolver import FakeResolver
from tests.integration.native.egress_world import INTERNET, NETWORK_ACTIONS, ip
from tests.integration.native.jailparts import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    LIBC,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    Room,
    checked,
    missing_programs,
    mount,
    unshare,
)
from tests.running import RunningStoker

HOST = "198.51.100.2"
HOST6, INTERNET6 = "2001:db8::2", "2001:db8::1"
SERVER = "203.0.113.9"
PRIVATE_RESOLVER = "10.1.2.3"
LOCAL_RESOLVER = "127.0.0.53"
REFUSED = {"EHOSTUNREACH", "ENETUNREACH", "EACCES", "ECONNREFUSED"}

PROBE = """
import ctypes, errno, json, os, socket, time, urllib.request

def connect(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(3)
        try:
            client.connect((address, port))
            return "connected as " + client.recv(100).decode()
        except TimeoutError:
            return "timeout"
        except OSError as problem:
            return errno.errorcode[problem.errno or 0]

def lambda_handler(event, context):
    if "connect" in event:
        return [connect(*target) for target in event["connect"]]
    if "get" in event:
        url = os.path.expandvars(event["get"])
        return urllib.request.urlopen(url, timeout=5).read().decode()
    if "resolve" in event:
        began = time.monotonic()
        try:
            found = sorted({info[4][0] for info in socket.getaddrinfo(event["resolve"], 80, socket.AF_INET)})
        except OSError as problem:
            found = str(problem)
        return {"found": found, "took_s": time.monotonic() - began}
    if "send" in event:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            return [send(sender, tuple(target)) for target in event["send"]]
    if "listen" in event:
        with socket.create_server(("0.0.0.0", event["listen"])) as server:
            time.sleep(event["for_s"])
    if "flood" in event:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            ends, sent = time.monotonic() + event["for_s"], 0
            while time.monotonic() < ends:
                try:
                    sender.sendto(bytes.fromhex(event["message"]), tuple(event["flood"]))
                    sent += 1
                except OSError:
                    pass
            return sent
    return {
        "links": [name for _, name in socket.if_nameindex()],
        "addresses": open("/proc/net/fib_trie").read(),
        "inet6": open("/proc/net/if_inet6").read() if os.path.exists("/proc/net/if_inet6") else "",
        "resolv_conf": open("/etc/resolv.conf").read(),
        "routes": open("/proc/net/route").read(),
    }

def send(sender, target):
    try:
        sender.sendto(b"from a function", target)
        return "sent"
    except OSError as problem:
        return errno.errorcode[problem.errno or 0]
"""


def unsupported() -> str:
    """Why this host cannot run these tests, or an empty string."""
    if os.geteuid() != 0:
        return "makes network namespaces, and egress needs root"
    missing = missing_programs("ip", "nft", "nsenter")
    return f"missing on this host: {missing}" if missing else ""


class World:
    """Enter it to be on its host; ``resolv_conf`` is that host's, and may be rewritten."""

    def __init__(self, folder: Path, resolver: str, local_resolver: str = LOCAL_RESOLVER) -> None:
        self.resolv_conf = folder / "resolv.conf"
        self.resolv_conf.write_text(f"search example.org\nnameserver {resolver}\n")
        self._local_resolver = local_resolver
        self._left = contextlib.ExitStack()

    def __enter__(self) -> "World":
        outside = [
            os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("mnt", "net")
        ]
        self._left.callback(_return_to, outside, os.getcwd())
        unshare(CLONE_NEWNS | CLONE_NEWNET)
        mount("none", "/", MS_REC | MS_PRIVATE)
        mount(str(self.resolv_conf), os.path.realpath("/etc/resolv.conf"), MS_BIND)
        self.internet = self._room(lambda: unshare(CLONE_NEWNET), _INTERNET_ACTIONS)
        self._wire(self.internet.pid)
        self.internet.ask("serve_http")
        for port in (25, 5353, 8080):
            self.internet.ask("serve_tcp", port)
        self.internet.ask("serve_dns", PRIVATE_RESOLVER)
        self.neighbour = self._room(lambda: None, _INTERNET_ACTIONS)
        self.neighbour.ask("serve_dns", self._local_resolver)
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def _room(self, enter: Any, actions: dict[str, Any]) -> Room:
        room = Room(enter, actions)
        self._left.callback(room.close)
        return room

    def _wire(self, internet_pid: int) -> None:
        """The host's one uplink, and everything else behind it."""
        ip("link", "set", "lo", "up")
        ip("link", "add", "up0", "type", "veth", "peer", "name", "wan", "netns", str(internet_pid))
        inside = ["nsenter", f"--net=/proc/{internet_pid}/ns/net", "ip"]
        for address in INTERNET:
            device = "wan" if address.endswith("/24") else "lo"
            subprocess.run([*inside, "addr", "add", address, "dev", device], check=True)
        subprocess.run([*inside, "addr", "add", f"{INTERNET6}/64", "dev", "wan", "nodad"], check=True)
        for device in ("lo", "wan"):
            subprocess.run([*inside, "link", "set", device, "up"], check=True)
        ip("addr", "add", f"{HOST}/24", "dev", "up0")
        ip("addr", "add", f"{HOST6}/64", "dev", "up0", "nodad")
        ip("link", "set", "up0", "up")
        ip("route", "add", "default", "via", "198.51.100.1")
        ip("-6", "route", "add", "default", "via", INTERNET6)

    def forwarding(self, link: str) -> str:
        """The sysctl of one link."""
        return Path(f"/proc/sys/net/ipv4/conf/{link}/forwarding").read_text().strip()

    def links(self) -> list[str]:
        """Host ends of sandboxes' links."""
        return re.findall(r"^(stk[0-9]+-[0-9]+)", ip("-br", "link"), re.MULTILINE)

    def tables(self) -> list[str]:
        """Tables of egress."""
        shown = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
        return re.findall(r"table inet (stoker\S*)", shown)

    def loopback_addresses(self) -> list[str]:
        """IPv4 addresses of lo."""
        return re.findall(r"inet (\S+)", ip("-4", "addr", "show", "lo"))

    def untouched(self) -> bool:
        """Whether nothing of any Stoker's egress is on this host."""
        kept = not self.links() and not self.tables() and self.loopback_addresses() == ["127.0.0.1/8"]
        return kept and self.forwarding("up0") == "0"


@contextlib.contextmanager
def running(**settings: object) -> Iterator[RunningStoker]:
    """A Stoker on the world's host with the probe function, removed at the end."""
    stoker = RunningStoker(**settings)
    try:
        stoker.start()
        stoker.create_python("probe", PROBE, Timeout=30)
        yield stoker
    finally:
        stoker.remove()


def _return_to(namespaces: list[int], folder: str) -> None:
    for namespace, kind in zip(namespaces, (CLONE_NEWNS, CLONE_NEWNET), strict=True):
        checked(LIBC.setns(namespace, kind))
        os.close(namespace)
    os.chdir(folder)


class _TellAddress(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.client_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _serve_http() -> bool:
    server = ThreadingHTTPServer(("0.0.0.0", 80), _TellAddress)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return True


_SERVED: list[FakeResolver] = []


def _serve_dns(address: str) -> bool:
    _SERVED.append(FakeResolver(address, 53))
    return True


def _dns_seen() -> list[int]:
    """Queries over UDP, connections over TCP."""
    return [sum(len(one.seen) for one in _SERVED), sum(one.tcp_connections for one in _SERVED)]


_INTERNET_ACTIONS = {
    **NETWORK_ACTIONS,
    "serve_http": _serve_http,
    "serve_dns": _serve_dns,
    "dns_seen": _dns_seen,
}
