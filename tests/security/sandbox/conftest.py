"""One jail with everything on for the tests of a module, and a driver for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from stoker.sandbox.container import ContainerDriver
from tests.integration.sandbox.running_jail import RunningJail, missing


@pytest.fixture(scope="module")
def jail() -> Iterator[RunningJail]:
    if missing():
        pytest.skip(missing())
    running = RunningJail()
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def driver(jail: RunningJail) -> AsyncIterator[ContainerDriver]:
    connected = await jail.driver()
    yield connected
    await connected.close()
