"""A desk for every test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.control.desk import Desk


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.code.gate.set()
    await made.plane.close()
