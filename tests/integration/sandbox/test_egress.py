"""A sandbox with egress, made by the jail: its own interface, a resolver, and no way to the host's services."""

import socket
from collections.abc import Iterator

import pytest

from tests.integration.sandbox.running_jail import RunningJail, create, missing, python, read_line, run

LOOK = """
import socket, struct
print([name for _, name in socket.if_nameindex()])
routes = [line.split() for line in open("/proc/net/route").readlines()[1:]]
gateways = {socket.inet_ntoa(struct.pack("<I", int(r[2], 16))) for r in routes if r[1] == "00000000"}
print(*gateways)
print(len([line for line in open("/etc/resolv.conf") if line.startswith("nameserver")]))
"""
CONNECT = """
import socket, sys
for target in sys.argv[1:]:
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 1.5)
        print("REACHED", target)
    except OSError as problem:
        print("refused")
"""


@pytest.fixture
def jail() -> Iterator[RunningJail]:
    if missing():
        pytest.skip(missing())
    running = RunningJail("--egress-range", "169.254.64.0/18")
    running.start()
    yield running
    running.stop()


async def test_it_has_a_way_out_that_leads_past_the_host(jail: RunningJail) -> None:
    driver = await jail.driver()
    info = await driver.start()
    if any("egress" in words for words in info.degraded):
        await driver.close()
        pytest.skip("; ".join(info.degraded))
    seen = (await run(driver, python(LOOK), egress=True)).output.splitlines()
    assert seen[0] == "['lo', 'eth0']"
    assert seen[1], "no default route"
    assert int(seen[2]) >= 1, "no resolver"
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        port = everywhere.getsockname()[1]
        own = socket.gethostbyname(socket.gethostname())
        targets = [f"{seen[1]}:{port}", f"127.0.0.1:{port}", f"{own}:{port}", "169.254.169.254:80"]
        outcome = await run(driver, python(CONNECT, *targets), egress=True)
    assert outcome.output.split() == ["refused"] * len(targets), outcome.output
    await driver.close()


async def test_two_sandboxes_do_not_reach_each_other(jail: RunningJail) -> None:
    driver = await jail.driver()
    info = await driver.start()
    if any("egress" in words for words in info.degraded):
        await driver.close()
        pytest.skip("; ".join(info.degraded))
    server = await create(driver, egress=True)
    await server.launch(
        python(
            "import socket, struct, fcntl, time, sys\n"
            "s = socket.create_server(('0.0.0.0', 7000))\n"
            "print(socket.inet_ntoa(fcntl.ioctl(s, 0x8915, struct.pack('256s', b'eth0'))[20:24]), flush=True)\n"
            "time.sleep(20)"
        )
    )
    address = await read_line(server.output)
    outcome = await run(driver, python(CONNECT, f"{address}:7000"), egress=True)
    assert outcome.output.strip() == "refused"
    await server.destroy()
    await driver.close()
