"""docs/api.md: its table is what the router and the handlers say."""

from pathlib import Path

import botocore
import pytest

from stoker.api.model import LAMBDA, compile_service
from stoker.app.api_page import BEGIN, END, PAGE, served, table, with_table
from stoker.services import lambda_types


def test_the_table_is_not_outdated() -> None:
    source = Path(lambda_types.__file__).read_text()
    if f"# botocore {botocore.__version__}\n" not in source:
        pytest.skip(f"another botocore than {botocore.__version__} made the checked-in model")
    page = PAGE.read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    assert with_table(page) == page, "run ./dev generate"


def test_what_is_written_by_hand_stays() -> None:
    page = f"# Title\n\nby hand\n\n{BEGIN}\nold\n{END}\n\nmore\n"
    assert with_table(page) == f"# Title\n\nby hand\n\n{table()}\n\nmore\n"


def test_every_operation_is_there_once_with_what_it_is() -> None:
    rows = [line.split(" | ") for line in table().splitlines() if line.startswith("| ")]
    states = {row[0].removeprefix("| "): row[-1].removesuffix(" |") for row in rows}
    operations = compile_service(LAMBDA).operations
    assert states["Invoke"] == states["CreateEventSourceMapping"] == "done"
    assert states["GetDurableExecution"] == "501"
    assert {name for name in operations if states[name] == "done"} == served(LAMBDA)
    assert all(states[name] in ("done", "501") for name in operations)
