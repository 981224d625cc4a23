"""Egress of sandboxes, in a world of network namespaces: what they reach, and what they must not."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.native.egress_world import HOST, Host, internet, sandbox
from tests.integration.native.jailparts import Room, build_library, missing_programs

MISSING = missing_programs("ip", "nft", "nsenter", "cc")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces and nftables rules: needs root"),
    pytest.mark.skipif(bool(MISSING), reason=f"missing on this host: {MISSING}"),
]
REFUSED = {"EHOSTUNREACH", "ENETUNREACH", "EACCES", "ECONNREFUSED", "timeout"}
PRIVATE = [
    "10.1.2.3",
    "192.168.5.5",
    "172.16.9.9",
    "169.254.169.254",
    "100.100.100.200",
    "100.64.0.9",
    "168.63.129.16",
]


class World:
    def __init__(self, library: Path, folder: Path, resolver: str) -> None:
        resolv_conf = folder / "resolv.conf"
        resolv_conf.write_text(f"search example.org\nnameserver {resolver}\n")
        self._rooms: list[Room] = []
        self.internet = self._keep(internet())
        self.host = self._keep(Host(library, resolv_conf).room())
        self.host.ask("wire", self.internet.pid)
        for port in (80, 25, 53):
            self.internet.ask("serve_tcp", port)
        self.internet.ask("serve_udp", "10.1.2.3", 53)
        self.host.ask("serve_tcp", 9797)

    def _keep(self, room: Room) -> Room:
        self._rooms.append(room)
        return room

    def sandbox(self) -> Room:
        made = self._keep(sandbox())
        made.address = self.host.ask("attach", made.pid)[0]  # type: ignore[attr-defined]
        return made

    def end(self, room: Room) -> None:
        self._rooms.remove(room)
        pid = room.pid
        room.close()
        self.host.ask("give", pid)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError, OSError):
            self.host.ask("close")
        for room in reversed(self._rooms):
            room.close()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(
        ["egress", "egress_host", "egress_locks", "egress_rules", "rtnetlink", "system_tool"],
        tmp_path_factory.mktemp("lib"),
    )


@pytest.fixture
def world(library: Path, tmp_path: Path) -> Iterator[World]:
    made = World(library, tmp_path, "10.1.2.3")
    yield made
    made.close()


@pytest.fixture
def local_dns_world(library: Path, tmp_path: Path) -> Iterator[World]:
    made = World(library, tmp_path, "127.0.0.53")
    yield made
    made.close()


def test_the_internet_sees_the_host(world: World) -> None:
    world.host.ask("open")
    assert world.sandbox().ask("connect", "203.0.113.9", 80) == f"connected as {HOST}"


def test_nothing_private_is_reached_and_the_refusal_is_quick(world: World) -> None:
    world.host.ask("open")
    inside = world.sandbox()
    assert inside.ask("connect", "203.0.113.9", 80).startswith("connected")
    began = time.monotonic()
    answers = {address: inside.ask("connect", address, 80) for address in PRIVATE}
    assert set(answers.values()) <= REFUSED, answers
    assert time.monotonic() - began < 3.0, "a refusal must not cost a function its time-out"
    # The same addresses answer the host itself: it is the rules that refuse.
    assert world.host.ask("connect", "10.1.2.3", 80) == f"connected as {HOST}"


def test_the_host_is_not_reached_at_any_of_its_addresses(world: World) -> None:
    world.host.ask("open")
    inside = world.sandbox()
    gateway = inside.ask("ip", "route", "show", "default").split()[2]
    for address in (HOST, gateway):
        assert inside.ask("connect", address, 9797) in REFUSED
    assert world.host.ask("connect", HOST, 9797) == f"connected as {HOST}"


def test_sandboxes_do_not_reach_each_other_and_are_not_reached(world: World) -> None:
    world.host.ask("open")
    one, other = world.sandbox(), world.sandbox()
    other.ask("serve_tcp", 8080)
    address = other.address  # type: ignore[attr-defined]
    assert other.ask("connect", address, 8080) == f"connected as {address}"
    assert one.ask("connect", address, 8080) in REFUSED
    assert world.host.ask("connect", address, 8080) in REFUSED
    world.internet.ask("ip", "route", "add", address, "via", HOST)
    assert world.internet.ask("connect", address, 8080) in REFUSED


def test_mail_and_ipv6_stay_inside(world: World) -> None:
    world.host.ask("open")
    inside = world.sandbox()
    assert inside.ask("connect", "203.0.113.9", 25) in REFUSED
    assert inside.ask("connect", "2001:db8::1", 80) in REFUSED
    assert "inet6" not in inside.ask("ip", "addr", "show", "eth0")
    assert "::1" in inside.ask("ip", "addr", "show", "lo")


def test_a_forged_source_address_is_dropped(world: World) -> None:
    world.host.ask("open")
    inside, other = world.sandbox(), world.sandbox()
    forged = other.address  # type: ignore[attr-defined]
    gateway = inside.ask("ip", "route", "show", "default").split()[2]
    inside.ask("ip", "addr", "add", f"{forged}/32", "dev", "lo")
    inside.ask("ip", "route", "replace", "default", "via", gateway, "dev", "eth0", "src", forged)
    assert inside.ask("connect", "203.0.113.9", 80) in REFUSED


def test_the_hosts_resolver_is_the_one_private_address_reached(world: World) -> None:
    world.host.ask("open")
    inside = world.sandbox()
    assert world.host.ask("resolv_conf") == "nameserver 10.1.2.3\n"
    assert world.host.ask("forward_dns") == 0
    assert inside.ask("ask_udp", "10.1.2.3", 53) == HOST
    assert inside.ask("connect", "10.1.2.3", 53) == f"connected as {HOST}"
    assert inside.ask("connect", "192.168.5.5", 53) in REFUSED
    assert inside.ask("connect", "10.1.2.3", 80) in REFUSED


def test_a_resolver_on_loopback_is_forwarded(local_dns_world: World) -> None:
    host = local_dns_world.host
    host.ask("open")
    inside = local_dns_world.sandbox()
    gateway = inside.ask("ip", "route", "show", "default").split()[2]
    assert host.ask("resolv_conf") == f"nameserver {gateway}\n"
    assert host.ask("forward_dns") == 1
    assert inside.ask("ask_udp", gateway, 53) == inside.address  # type: ignore[attr-defined]
    assert inside.ask("connect", gateway, 9797) in REFUSED


def test_configuration_allows_and_denies_ranges(world: World) -> None:
    world.host.ask("open", ["10.1.2.0/24"], ["203.0.113.0/28"])
    inside = world.sandbox()
    assert inside.ask("connect", "10.1.2.3", 80) == f"connected as {HOST}"
    assert inside.ask("connect", "203.0.113.9", 80) in REFUSED


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "x/8", "0.0.0.0/0; drop"])
def test_malformed_ranges_are_refused(world: World, wrong: str) -> None:
    with pytest.raises(RuntimeError, match="egress ranges"):
        world.host.ask("open", [wrong])
    assert "stoker" not in world.host.ask("rules")


def test_only_the_uplink_starts_to_forward_and_stops_again(world: World) -> None:
    def forwarding(name: str) -> str:
        return world.host.ask("read", f"/proc/sys/net/ipv4/conf/{name}/forwarding").strip()

    assert forwarding("up0") == "0"
    world.host.ask("open")
    assert (forwarding("up0"), forwarding("lo"), forwarding("all")) == ("1", "0", "0")
    world.host.ask("close")
    assert forwarding("up0") == "0"


def test_a_link_dies_with_its_sandbox_and_its_address_returns(world: World) -> None:
    world.host.ask("open")
    inside = world.sandbox()
    assert "stk" in world.host.ask("ip", "-br", "link")
    world.end(inside)
    deadline = time.monotonic() + 10
    while world.host.ask("tick") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert world.host.ask("tick") == 0
    assert "stk" not in world.host.ask("ip", "-br", "link")


def test_the_next_life_cleans_what_a_killed_one_left(library: Path, world: World, tmp_path: Path) -> None:
    world.host.ask("open")
    world.sandbox()
    pid = os.fork()  # a jail in the same host that is killed without closing
    if pid == 0:
        from tests.integration.native.egress_world import enter_namespace

        enter_namespace(world.host.pid)
        host = Host(library, tmp_path / "resolv.conf")
        host.enter_here()
        host.open()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert world.host.ask("rules").count("table inet stoker") == 2
    world.host.ask("close")
    assert world.host.ask("rules").count("table inet stoker") == 1
    world.host.ask("open")
    assert world.host.ask("rules").count("table inet stoker") == 1
    assert world.sandbox().ask("connect", "203.0.113.9", 80) == f"connected as {HOST}"
