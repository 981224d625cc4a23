"""What a function reaches: the internet as the host, names through the host's resolver, and Stoker's own API."""

import os
import signal
import time

import pytest

from tests.integration.egress.world import HOST, LOCAL_RESOLVER, PRIVATE_RESOLVER, SERVER, World, running
from tests.integration.traces import stoker_processes
from tests.running import RunningStoker

pytestmark = pytest.mark.timeout(120)


def test_the_internet_sees_the_host(world: World, stoker: RunningStoker) -> None:
    assert stoker.invoke("probe", {"get": f"http://{SERVER}/"}) == HOST
    inside = stoker.invoke("probe")
    assert inside["links"] == ["lo", "eth0"]
    assert "eth0" not in inside["inet6"]
    assert inside["resolv_conf"] == f"nameserver {PRIVATE_RESOLVER}\n"


def test_its_own_api_is_at_the_listener_inside(stoker: RunningStoker) -> None:
    assert stoker.invoke("probe", {"get": "$AWS_ENDPOINT_URL_LAMBDA/health"}) == "alive\n"


def test_names_go_to_the_hosts_resolver(world: World, stoker: RunningStoker) -> None:
    assert stoker.invoke("probe", {"resolve": "a.example"})["found"] == [SERVER]
    assert world.internet.ask("dns_seen") == [1, 0]
    assert stoker.invoke("probe", {"resolve": "big.example"})["found"] == [SERVER]
    assert world.internet.ask("dns_seen") == [2, 1]
    assert stoker.invoke("probe", {"get": "http://a.example/"}) == HOST


def test_a_resolver_on_loopback_is_reached_through_the_forwarder(
    local_dns_world: World, local_dns_stoker: RunningStoker
) -> None:
    named = local_dns_stoker.invoke("probe")["resolv_conf"].split()
    assert named[0] == "nameserver"
    assert named[1].startswith("169.254.")
    assert local_dns_stoker.invoke("probe", {"resolve": "a.example"})["found"] == [SERVER]
    assert local_dns_stoker.invoke("probe", {"resolve": "big.example"})["found"] == [SERVER]
    assert local_dns_world.neighbour.ask("dns_seen") == [2, 1]
    local_dns_world.resolv_conf.write_text(f"nameserver {PRIVATE_RESOLVER}\n")
    assert local_dns_stoker.invoke("probe", {"resolve": "a.example"})["found"] == [SERVER]
    assert local_dns_world.internet.ask("dns_seen") == [1, 0], "the host changed its network"
    local_dns_world.resolv_conf.write_text("nameserver 127.0.0.54\n")
    failed = local_dns_stoker.invoke("probe", {"resolve": "a.example"})
    assert isinstance(failed["found"], str)
    assert failed["took_s"] < 2, "a resolver that is not there is told at once"


def test_the_forwarder_moves_to_the_next_jail(
    local_dns_world: World, local_dns_stoker: RunningStoker
) -> None:
    assert local_dns_stoker.invoke("probe", {"resolve": "a.example"})["found"] == [SERVER]
    for _ in range(2):
        (jail,) = stoker_processes(local_dns_stoker.data)["jail"]
        os.kill(jail, signal.SIGKILL)
        deadline = time.monotonic() + 15
        while stoker_processes(local_dns_stoker.data)["jail"] in ([], [jail]):
            assert time.monotonic() < deadline, "the jail did not come back"
            time.sleep(0.05)
        assert local_dns_stoker.invoke("probe", {"resolve": "big.example"})["found"] == [SERVER]
        assert local_dns_stoker.invoke("probe", {"get": f"http://{SERVER}/"}) == HOST
        assert len(local_dns_world.tables()) == 1


def test_without_egress_there_is_loopback_only(local_dns_world: World) -> None:
    with running(egress="false") as stoker:
        inside = stoker.invoke("probe")
        assert inside["links"] == ["lo"]
        assert len(inside["routes"].splitlines()) == 1
        targets = [[SERVER, 80], [HOST, 80], [LOCAL_RESOLVER, 53], [PRIVATE_RESOLVER, 53]]
        assert set(stoker.invoke("probe", {"connect": targets})) <= {"ENETUNREACH", "ECONNREFUSED"}
        assert stoker.invoke("probe", {"get": "$AWS_ENDPOINT_URL_LAMBDA/health"}) == "alive\n"
        assert local_dns_world.untouched()
