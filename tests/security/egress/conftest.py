"""One world with a Stoker in it for all that is tried here."""

from collections.abc import Iterator

import pytest

from tests.integration.egress.world import LOCAL_RESOLVER, World, running, unsupported
from tests.running import RunningStoker


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if unsupported():
        pytest.skip(unsupported())
    with World(tmp_path_factory.mktemp("world"), LOCAL_RESOLVER) as made:
        yield made


@pytest.fixture(scope="module")
def stoker(world: World) -> Iterator[RunningStoker]:
    with running() as made:
        yield made
