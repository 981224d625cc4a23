"""Worlds with a Stoker in them, one for each kind of resolver of the host."""

from collections.abc import Iterator

import pytest

from tests.integration.egress.world import LOCAL_RESOLVER, PRIVATE_RESOLVER, World, running, unsupported
from tests.running import RunningStoker


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A host whose resolver is elsewhere."""
    if unsupported():
        pytest.skip(unsupported())
    with World(tmp_path_factory.mktemp("world"), PRIVATE_RESOLVER) as made:
        yield made


@pytest.fixture
def local_dns_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A host whose resolver is on its loopback."""
    if unsupported():
        pytest.skip(unsupported())
    with World(tmp_path_factory.mktemp("world"), LOCAL_RESOLVER) as made:
        yield made


@pytest.fixture
def stoker(world: World) -> Iterator[RunningStoker]:
    with running() as made:
        yield made


@pytest.fixture
def local_dns_stoker(local_dns_world: World) -> Iterator[RunningStoker]:
    with running() as made:
        yield made
