"""Registries of the module that uses them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.registries import Certificates, Registry, make_certificates, running_registry


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with running_registry() as running:
        yield running


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return tmp_path / "layout"
