"""What a function must not reach. Each address answers somebody else in the same test: it is refused, not absent."""

import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.integration.egress.world import (
    HOST,
    HOST6,
    INTERNET6,
    LOCAL_RESOLVER,
    PROBE,
    REFUSED,
    SERVER,
    World,
)
from tests.integration.native.egress_world import connect
from tests.running import RunningStoker

pytestmark = pytest.mark.timeout(120)
PRIVATE = [
    "10.1.2.3",
    "100.64.0.9",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.9.9",
    "192.168.5.5",
]
MULTICAST = "239.1.2.3"


@pytest.fixture
def host_service(world: World) -> Iterator[int]:
    """A port that tells every peer its address, on all addresses of the host, IPv6 too."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                client, peer = server.accept()
                with client:
                    client.sendall(peer[0].encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        ended.set()
        connect("127.0.0.1", server.getsockname()[1])
        thread.join()


def gateway_of(stoker: RunningStoker) -> str:
    words = stoker.invoke("probe")["resolv_conf"].split()
    assert words[0] == "nameserver"
    return words[1]


def test_private_ranges_and_metadata(world: World, stoker: RunningStoker) -> None:
    for address in PRIVATE:
        assert connect(address, 8080) == f"connected as {HOST}"
    assert stoker.invoke("probe", {"connect": [[SERVER, 8080]]}) == [f"connected as {HOST}"]
    began = time.monotonic()
    answers = stoker.invoke("probe", {"connect": [[address, 8080] for address in PRIVATE]})
    assert set(answers) <= REFUSED, dict(zip(PRIVATE, answers, strict=True))
    assert time.monotonic() - began < 5, "a refusal must not cost a function its time-out"


def test_the_hosts_services(stoker: RunningStoker, host_service: int) -> None:
    addresses = [HOST, "127.0.0.1", gateway_of(stoker)]
    for address in addresses:
        assert connect(address, host_service).startswith("connected as")
    answers = stoker.invoke("probe", {"connect": [[address, host_service] for address in addresses]})
    assert set(answers) <= REFUSED, dict(zip(addresses, answers, strict=True))


def test_the_public_port_of_stoker(stoker: RunningStoker) -> None:
    with socket.create_connection(("127.0.0.1", stoker.port), 2):
        pass
    targets = [[address, stoker.port] for address in (HOST, "127.0.0.1", gateway_of(stoker))]
    assert set(stoker.invoke("probe", {"connect": targets})) <= REFUSED


def test_the_hosts_resolver_is_reached_at_its_dns_port_only(
    world: World, stoker: RunningStoker, host_service: int
) -> None:
    gateway = gateway_of(stoker)
    assert connect(LOCAL_RESOLVER, host_service).startswith("connected as")
    answers = stoker.invoke("probe", {"connect": [[gateway, host_service], [LOCAL_RESOLVER, 53]]})
    assert set(answers) <= REFUSED
    # DNS elsewhere in private ranges is private too.
    assert stoker.invoke("probe", {"connect": [["10.1.2.3", 53]]})[0] in REFUSED


def test_ipv6(stoker: RunningStoker, host_service: int) -> None:
    assert connect(HOST6, host_service) == f"connected as {HOST6}"
    targets = [[HOST6, host_service], [INTERNET6, 80], ["fe80::1", 80], ["::ffff:127.0.0.1", host_service]]
    assert set(stoker.invoke("probe", {"connect": targets})) <= REFUSED | {"EINVAL"}


def test_mail(stoker: RunningStoker) -> None:
    assert connect(SERVER, 25) == f"connected as {HOST}"
    assert stoker.invoke("probe", {"connect": [[SERVER, 25]]})[0] in REFUSED


def test_another_sandbox(world: World, stoker: RunningStoker) -> None:
    stoker.create_python("listener", _LISTENER, Timeout=30)
    stoker.client("lambda").invoke(FunctionName="listener", InvocationType="Event", Payload=b"{}")
    address = _address_printed(stoker)
    assert stoker.invoke("probe", {"connect": [[address, 7000]]})[0] in REFUSED
    assert connect(address, 7000) in {*REFUSED, "timeout", "EPERM"}, "not from the host either"


def test_multicast_and_broadcast(world: World, stoker: RunningStoker) -> None:
    stoker.invoke("probe")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("0.0.0.0", 0))
        port = listening.getsockname()[1]
        for link in [*world.links(), "lo"]:
            membership = socket.inet_aton(MULTICAST) + bytes(4)
            membership += socket.if_nametoindex(link).to_bytes(4, "little")
            listening.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        listening.settimeout(2)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as local:
            local.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            local.sendto(b"from the host", (MULTICAST, port))
        assert listening.recv(100) == b"from the host"
        stoker.invoke("probe", {"send": [[MULTICAST, port], ["255.255.255.255", port], [HOST, port]]})
        listening.settimeout(0.5)
        with pytest.raises(TimeoutError):
            listening.recv(100)


def test_a_flood_of_dns_does_not_starve_another_function(world: World, stoker: RunningStoker) -> None:
    stoker.create_python("other", PROBE, Timeout=30)
    query = "1234 0100 0001 0000 0000 0000 06 73696c656e74 00 0001 0001".replace(" ", "")
    flood = {"flood": [gateway_of(stoker), 53], "for_s": 4, "message": query}
    sent: list[int] = []
    flooding = threading.Thread(target=lambda: sent.append(stoker.invoke("probe", flood)))
    flooding.start()
    time.sleep(1)
    for number in range(5):
        answer = stoker.invoke("other", {"resolve": f"a{number}.example"})
        assert answer["found"] == [SERVER]
        assert answer["took_s"] < 2
    flooding.join()
    assert sent[0] > 10_000


_LISTENER = """
import fcntl, socket, struct, time

def lambda_handler(event, context):
    with socket.create_server(("0.0.0.0", 7000)) as server:
        address = fcntl.ioctl(server, 0x8915, struct.pack("256s", b"eth0"))[20:24]
        with socket.create_connection((socket.inet_ntoa(address), 7000), 2):
            print("ADDRESS", socket.inet_ntoa(address), flush=True)
        time.sleep(10)
"""


def _address_printed(stoker: RunningStoker) -> str:
    logs = stoker.client("logs")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            events = logs.filter_log_events(logGroupName="/aws/lambda/listener")["events"]
        except logs.exceptions.ResourceNotFoundException:
            events = []
        for event in events:
            if found := re.search(r"ADDRESS (\S+)", event["message"]):
                return found[1]
        time.sleep(0.1)
    raise AssertionError("the listener printed no address")
