"""Memory, processes, /tmp, open files and CPU end where the limits say, and only for the sandbox that exceeds them."""

import asyncio
import time

from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.driver import SandboxLimits
from tests.integration.sandbox.running_jail import create, finish, python, run, shell

SMALL = SandboxLimits(memory_mb=128, cpu_quota=1.0, pids_max=64, open_files_max=128, tmp_mb=512)
HOG = "x = []\nwhile True: x.append(bytearray(1 << 20))"


async def test_memory_ends_the_sandbox_and_says_so(driver: ContainerDriver) -> None:
    sandbox = await create(driver, SMALL)
    await sandbox.launch(python(HOG))
    outcome = await finish(sandbox)
    assert outcome.exit.signal == 9
    assert outcome.exit.oom_killed
    assert sandbox.oom_kills() >= 1
    assert 100 << 20 < sandbox.memory_peak_bytes() <= 128 << 20


async def test_a_child_that_runs_out_of_memory_ends_its_parent_too(driver: ContainerDriver) -> None:
    code = (
        f"import os, time\nif os.fork() == 0:\n  exec({HOG!r})\nos.wait(); time.sleep(20); print('survived')"
    )
    outcome = await run(driver, python(code), SMALL, timeout_s=15)
    assert outcome.exit.oom_killed
    assert "survived" not in outcome.output


async def test_files_in_tmp_are_not_the_functions_memory(driver: ContainerDriver) -> None:
    script = "head -c 300M /dev/zero > /tmp/big && wc -c < /tmp/big"
    outcome = await run(driver, shell(script), SMALL, timeout_s=60)
    assert (outcome.output.strip(), outcome.exit.oom_killed) == (str(300 << 20), False)


async def test_tmp_ends_at_its_limit(driver: ContainerDriver) -> None:
    code = (
        "import errno, os\nfd = os.open('/tmp/big', os.O_CREAT | os.O_WRONLY)\nwritten = 0\n"
        "try:\n  while written < 900 << 20: written += os.write(fd, bytes(1 << 20)); os.fsync(fd)\n"
        "except OSError as e: print(errno.errorcode[e.errno], written >> 20)"
    )
    outcome = await run(driver, python(code), SMALL, timeout_s=100)
    error, written_mb = outcome.output.split()
    assert error in ("ENOSPC", "EDQUOT")
    assert 400 <= int(written_mb) <= 512


async def test_a_fork_bomb_is_bounded_and_harms_nobody(driver: ContainerDriver) -> None:
    neighbour = await create(driver)
    bomb = await create(driver, SMALL)
    code = "import os, time\nn = 0\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(30)\n    n += 1\nexcept OSError: print(n)"
    await bomb.launch(python(code))
    await neighbour.launch(shell("for i in 1 2 3 4 5; do /bin/true || echo failed; done; echo fine"))
    assert (await finish(neighbour)).output == "fine\n"
    outcome = await finish(bomb)
    assert 50 <= int(outcome.output) <= 64


async def test_threads_count_as_processes(driver: ContainerDriver) -> None:
    code = (
        "import threading, time\nn = 0\ntry:\n  while True:\n"
        "    threading.Thread(target=time.sleep, args=(5,), daemon=True).start(); n += 1\nexcept RuntimeError: print(n, flush=True)"
    )
    outcome = await run(driver, python(code), SMALL)
    assert 50 <= int(outcome.output) <= 64


async def test_open_files_end_at_the_limit_and_it_cannot_be_raised(driver: ContainerDriver) -> None:
    code = (
        "import os, resource\nfds = []\ntry:\n  while True: fds.append(os.open('/dev/null', 0))\n"
        "except OSError: os.close(fds.pop()); print(max(fds) < 128)\n"
        "try: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)); print('raised')\nexcept (ValueError, OSError): print('kept')"
    )
    outcome = await run(driver, python(code), SMALL)
    assert outcome.output.split() == ["True", "kept"]


BURN = "import time\nend = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass\nprint(time.process_time())"


async def test_cpu_is_capped_at_its_share(driver: ContainerDriver) -> None:
    outcome = await run(driver, python(BURN), SandboxLimits(memory_mb=128, cpu_quota=0.2))
    assert float(outcome.output) < 0.2 * 1.5 + 0.25


async def test_limits_of_a_living_sandbox_take_effect(driver: ContainerDriver) -> None:
    sandbox = await create(driver, SandboxLimits(memory_mb=512, cpu_quota=0))
    await sandbox.launch(python("import sys, time\ntime.sleep(0.5)\nx = bytearray(300 << 20)\nprint('kept')"))
    await sandbox.set_limits(SandboxLimits(memory_mb=128, cpu_quota=0.5))
    outcome = await finish(sandbox)
    assert outcome.exit.oom_killed
    assert outcome.output == ""


async def test_no_core_is_written(driver: ContainerDriver) -> None:
    outcome = await run(
        driver, shell("ulimit -c; ulimit -c unlimited 2>/dev/null || echo kept; kill -SEGV $$")
    )
    assert outcome.output.split() == ["0", "kept"]
    assert outcome.exit.signal == 11


async def test_a_flood_of_output_blocks_only_its_own_function(driver: ContainerDriver) -> None:
    flood = await create(driver)
    await flood.launch(shell("exec cat /dev/zero"))
    await asyncio.sleep(0.3)
    began = time.monotonic()
    assert (await run(driver, shell("echo fine"))).output == "fine\n"
    assert time.monotonic() - began < 5
    flood.kill()
    await flood.wait()
    await flood.destroy()
