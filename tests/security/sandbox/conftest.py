"""One jail with everything on for the tests of a module, and a driver for each test: over the host's programs, and
over a root of the sandbox's own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from stoker.sandbox.container import ContainerDriver
from tests.integration.sandbox.image_root import ImageDriver, make_image_root
from tests.integration.sandbox.running_jail import RunningJail, missing


@pytest.fixture(scope="module")
def jail() -> Iterator[RunningJail]:
    if missing():
        pytest.skip(missing())
    running = RunningJail()
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    for above in folder.parents[:2]:
        above.chmod(0o755)
    return make_image_root(folder)


@pytest.fixture(params=["host", "image"])
async def driver(
    jail: RunningJail, request: pytest.FixtureRequest, image_root: Path
) -> AsyncIterator[ContainerDriver]:
    connected = await jail.driver()
    if request.param == "image":
        yield cast(ContainerDriver, ImageDriver(connected, image_root))
    else:
        yield connected
    await connected.close()
