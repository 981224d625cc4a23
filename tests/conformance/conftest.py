"""One running Stoker for the conformance tests of a test process."""

from collections.abc import Iterator

import pytest

from tests.running import RunningStoker


@pytest.fixture(scope="session")
def stoker() -> Iterator[RunningStoker]:
    running = RunningStoker(retry_scale=0.02)
    try:
        running.start()
        yield running
    finally:
        running.remove()
