"""The worker over real sandboxes of the container driver: what only the kernel can do."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.guarded import GuardedDriver
from tests.integration.worker.test_agent import ID, Bench


@pytest.fixture
async def bench(jail_socket: Path, tmp_path: Path) -> AsyncIterator[Bench]:
    # Every folder above the code must be open to the sandbox's own user.
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    driver = GuardedDriver(ContainerDriver(jail_socket))
    await driver.start()
    bench = Bench(tmp_path, driver=driver)
    yield bench
    await bench.agent.close(0)
    await driver.close()
    assert bench.agent.sandboxes() == []


async def test_an_event_goes_in_and_the_result_comes_out(bench: Bench) -> None:
    sandbox = await bench.agent.create(
        bench.function(
            "import os\ndef handler(event, context): return [event, os.getpid(), os.getuid() != 0]"
        )
    )
    result = await bench.invoke(sandbox, {"a": 1})
    event, pid, unprivileged = json.loads(result.payload)
    assert (event, unprivileged) == ({"a": 1}, True)
    assert pid < 10
    await asyncio.sleep(0.2)
    assert json.loads((await bench.invoke(sandbox, 2, 2)).payload)[:2] == [2, pid]
    (status,) = bench.agent.sandboxes()
    assert (status.state, status.invocations) == ("idle", 2)
    assert 1_000_000 < status.memory_used_bytes < 128 * 1024 * 1024


async def test_a_frozen_function_does_nothing(bench: Bench) -> None:
    sandbox = await bench.agent.create(
        bench.function(
            """
            import threading, time
            ticks = 0
            def tick():
                global ticks
                while True:
                    ticks += 1
                    time.sleep(0.01)
            threading.Thread(target=tick, daemon=True).start()
            def handler(event, context): return ticks
            """
        )
    )
    first = json.loads((await bench.invoke(sandbox)).payload)
    await asyncio.sleep(1)
    second = json.loads((await bench.invoke(sandbox, None, 2)).payload)
    assert second - first < 40  # a second of ticks would be a hundred


@pytest.mark.parametrize("where", ["itself", "a child"])
async def test_out_of_memory(bench: Bench, where: str) -> None:
    eat = "x = [bytearray(1 << 20) for _ in range(4096)]"
    code = f"def handler(event, context):\n    {eat}"
    if where == "a child":
        code = f"""
import os
def handler(event, context):
    if os.fork() == 0:
        {eat}
    os.wait()
    return "survived"
"""
    result = await bench.once(code, timeout_s=20)
    assert json.loads(result.payload) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {ID} Error: Runtime exited with error: signal: killed",
    }
    assert not result.healthy
    tail = (result.log_tail or b"").decode()
    assert tail.endswith("Status: error\tError Type: Runtime.OutOfMemory\n")
    used = int(tail.partition("Max Memory Used: ")[2].partition(" ")[0])
    assert 120 <= used <= 129


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os._exit(3)", "Runtime exited with error: exit status 3"),
        ("os.kill(os.getpid(), 9)", "Runtime exited with error: signal: killed"),
        ("os._exit(0)", "Runtime exited without providing a reason"),
    ],
)
async def test_an_exit(bench: Bench, code: str, message: str) -> None:
    result = await bench.once(f"import os\ndef handler(event, context):\n    print('last words')\n    {code}")
    assert json.loads(result.payload)["errorMessage"] == f"RequestId: {ID} Error: {message}"
    assert "last words\n" in (result.log_tail or b"").decode()


async def test_a_failed_init_is_repeated(bench: Bench) -> None:
    result = await bench.once("raise Exception('Runtime startup fails')")
    assert json.loads(result.payload)["errorMessage"] == "Runtime startup fails"
    assert bench.logs.text.count("INIT_REPORT") == 2


async def test_a_time_out(bench: Bench) -> None:
    result = await bench.once("def handler(event, context):\n    while True: pass", timeout_s=1)
    assert json.loads(result.payload)["errorType"] == "Sandbox.Timedout"


async def test_init_has_the_whole_cpu_and_the_handler_its_share(bench: Bench) -> None:
    busy = """
import time
def spin():
    begun, used = time.monotonic(), time.process_time()
    while time.process_time() - used < 0.2: pass
    return 0.2 / (time.monotonic() - begun)
init = spin()
def handler(event, context): return [init, spin()]
"""
    ratios: list[float] = []
    for _ in range(3):  # a busy host may hold an Init to little more than the handler's share
        result = await bench.once(busy, memory_mb=256, timeout_s=20)
        init, handler = json.loads(result.payload)
        assert handler < 0.25  # 256 / 1769 MB of a core, and some slack for the first period
        ratios.append(init / handler)
        if ratios[-1] > 2:
            return
    raise AssertionError(ratios)
