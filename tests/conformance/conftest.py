"""One running Stoker for the conformance tests of a test process."""

from collections.abc import Iterator

import pytest

from tests.conformance.world import World
from tests.running import RunningStoker


@pytest.fixture(scope="session")
def stoker() -> Iterator[RunningStoker]:
    running = RunningStoker(retry_scale=0.02)
    try:
        running.start()
        yield running
    finally:
        running.remove()


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """A Stoker of its own for what must not find anything changed."""
    running = RunningStoker(pool_memory_mb=0)
    try:
        running.start()
        made = World(running)
        yield made
        made.close()
        assert "request_failed" not in running.log.read_text()
    finally:
        running.remove()
