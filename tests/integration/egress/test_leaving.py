"""What egress leaves on the host: nothing, also after kill -9; and nothing of another Stoker's is touched."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.egress.world import HOST, LOCAL_RESOLVER, REFUSED, SERVER, World, running, unsupported
from tests.integration.native.egress_world import ip
from tests.integration.native.jailparts import MS_BIND, mount
from tests.integration.traces import stoker_processes

pytestmark = pytest.mark.timeout(180)


def egress_files() -> list[str]:
    """Of this network namespace."""
    number = os.stat("/proc/thread-self/ns/net").st_ino
    return sorted(path.name for path in Path("/run").glob(f"stoker-egress-{number}*"))


def wait_until(true: object, what: str, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_stop_leaves_nothing(local_dns_world: World) -> None:
    world = local_dns_world
    with running() as stoker:
        assert stoker.invoke("probe", {"get": f"http://{SERVER}/"}) == HOST
        assert world.links()
        assert world.forwarding("up0") == "1"
        assert (world.forwarding("all"), world.forwarding("lo")) == ("0", "0")
        assert len(world.loopback_addresses()) == 2
        assert stoker.stop() == 0
        assert world.untouched()
        assert egress_files() == []


def test_a_host_that_is_a_router_stays_one(world: World) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    with running() as stoker:
        assert stoker.invoke("probe", {"get": f"http://{SERVER}/"}) == HOST
        stoker.stop()
        assert world.forwarding("up0") == "1"
    Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
    with running() as stoker:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # by someone else, meanwhile
        stoker.stop()
        assert world.forwarding("up0") == "1"


@pytest.mark.parametrize("role", ["jail", "supervisor"])
def test_what_a_killed_one_left_goes_with_the_next(local_dns_world: World, role: str) -> None:
    world = local_dns_world
    with running() as stoker:
        assert stoker.invoke("probe", {"get": f"http://{SERVER}/"}) == HOST
        before = stoker_processes(stoker.data)["jail"]
        os.kill(stoker_processes(stoker.data)[role][0], signal.SIGKILL)
        if role == "supervisor":
            assert stoker.process is not None
            stoker.process.wait()
            assert world.tables(), "a killed jail cannot tidy up"
            stoker.start()
        else:
            wait_until(
                lambda: stoker_processes(stoker.data)["jail"] not in ([], before),
                "the jail did not come back",
            )
        assert stoker.invoke("probe", {"get": f"http://{SERVER}/"}) == HOST
        assert stoker.invoke("probe", {"resolve": "a.example"})["found"] == [SERVER]
        assert len(world.tables()) == 1
        assert len(world.loopback_addresses()) == 2
        stoker.stop()
        assert world.untouched()


def test_two_stokers_keep_out_of_each_others_way(local_dns_world: World) -> None:
    world = local_dns_world
    with running() as first, running() as second:
        for stoker in (first, second):
            assert stoker.invoke("probe", {"get": f"http://{SERVER}/"}) == HOST
            assert stoker.invoke("probe", {"resolve": "big.example"})["found"] == [SERVER]
        assert {link[:4] for link in world.links()} == {"stk0", "stk1"}
        assert len(world.tables()) == 2
        stays = first.invoke("probe")["resolv_conf"]
        first.client("lambda").invoke(
            FunctionName="probe", InvocationType="Event", Payload=b'{"listen": 7000, "for_s": 4}'
        )
        assert second.stop() == 0
        assert len(world.tables()) == 1
        assert world.forwarding("up0") == "1", "the other one needs it"
        assert first.invoke("probe", {"get": f"http://{SERVER}/"}) == HOST
        assert first.invoke("probe", {"resolve": "a.example"})["found"] == [SERVER]
        second.start()
        assert second.invoke("probe", {"get": f"http://{SERVER}/"}) == HOST
        os.kill(stoker_processes(second.data)["supervisor"][0], signal.SIGKILL)
        assert second.process is not None
        second.process.wait()
        second.start()
        for stoker in (first, second):
            assert stoker.invoke("probe", {"get": f"http://{SERVER}/"}) == HOST
        assert first.invoke("probe")["resolv_conf"] == stays, "its sandbox lived all along"
        assert len(world.tables()) == 2
        first.stop()
        assert world.forwarding("up0") == "1"
        second.stop()
        assert world.untouched()


def test_sandboxes_of_two_stokers_do_not_reach_each_other(world: World) -> None:
    with running() as first, running() as second:
        first.client("lambda").invoke(
            FunctionName="probe", InvocationType="Event", Payload=b'{"listen": 7000, "for_s": 15}'
        )
        wait_until(lambda: any(link.startswith("stk0") for link in world.links()), "no link of the listener")
        time.sleep(1)  # until it listens
        routes = [ip("route", "show", "dev", link).split() for link in world.links() if link[:4] == "stk0"]
        targets = [[words[0], 7000] for words in routes if words]
        assert targets
        assert set(second.invoke("probe", {"connect": targets})) <= REFUSED


def test_a_name_server_on_every_address_is_asked_itself(tmp_path: Path) -> None:
    if unsupported():
        pytest.skip(unsupported())
    with World(tmp_path, LOCAL_RESOLVER, "0.0.0.0") as world, running() as stoker:
        assert stoker.invoke("probe", {"resolve": "big.example"})["found"] == [SERVER]
        assert world.neighbour.ask("dns_seen") == [1, 1]


def test_without_nft_functions_run_and_the_reason_is_told(tmp_path: Path) -> None:
    if unsupported():
        pytest.skip(unsupported())
    empty = tmp_path / "empty"
    empty.mkdir()
    with World(tmp_path, LOCAL_RESOLVER) as world:
        assert world.untouched()
        mount(str(empty), os.path.realpath("/usr/sbin"), MS_BIND)  # where nft is; only in this namespace
        with running() as stoker:
            assert stoker.invoke("probe")["links"] == ["lo"]
            log = stoker.log.read_text()
            assert "stoker-jail: no egress: nft is missing (package nftables)" in log
            assert "functions cannot reach the network: no egress (root and nftables bring it)" in log
            doctor = subprocess.run(
                [sys.executable, "-m", "stoker.cli.main", "doctor", "--data", str(stoker.data)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "install nftables" in " ".join(doctor.stdout.split())
