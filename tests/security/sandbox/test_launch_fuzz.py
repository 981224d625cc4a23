"""The init against hostile launch records: its parser under the sanitizers, and the real one in a sandbox."""

import asyncio
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.container_launch import InitOperation, encode_launch, encode_order
from tests.integration.sandbox.running_jail import create, finish, shell

SOURCE = Path(__file__).with_name("launch_fuzz.c")
ROUNDS = 100_000
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-unused-function"]


def test_mutated_records_are_parsed_within_their_bounds(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler is needed")
    program = tmp_path / "launch_fuzz"
    built = subprocess.run(
        [compiler, "-O1", "-g", *SANITIZERS, "-o", program, SOURCE],
        capture_output=True,
        text=True,
        check=False,
    )
    if "sanitizer" in built.stderr and built.returncode:
        pytest.skip("the compiler's address sanitizer is needed")
    assert built.returncode == 0, built.stderr
    done = subprocess.run(
        [program, "11", str(ROUNDS)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert ROUNDS // 20 < int(done.stdout) < ROUNDS, "neither all nor next to none of them are well-formed"


async def test_the_init_survives_records_that_are_none(driver: ContainerDriver) -> None:
    """Refused one by one, then it starts what it is told to."""
    dice = random.Random(7)
    good = encode_launch(shell("echo fine"))
    sandbox = await create(driver)
    for _ in range(300):
        junk = bytearray(
            dice.choice([good, encode_order(InitOperation.CONTINUE), dice.randbytes(dice.randrange(1, 200))])
        )
        junk[dice.randrange(min(4, len(junk)))] ^= 1 << dice.randrange(8)  # the magic, so that nothing starts
        for _ in range(100):
            try:
                sandbox._control.send(bytes(junk))
                break
            except BlockingIOError:
                await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    await sandbox.launch(shell("echo fine"))
    assert (await finish(sandbox)).output == "fine\n"
