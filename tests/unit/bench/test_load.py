"""What wrk is told to send, and what the echo's bodies are."""

import json

import pytest

from bench.figures import Figure, Measured
from bench.functions import body_of
from bench.report import between, draw, markdown, number, table
from bench.wrk import Load, lua, script_of


def test_lua_literals_keep_quotes_and_lines_apart() -> None:
    assert lua('a "quoted"\nline') == '"a \\"quoted\\"\\nline"'
    script = script_of({"X-Date": "a"}, b'{"k": "v"}', 0)
    assert 'wrk.headers = {["X-Date"] = "a"}' in script
    assert 'wrk.body = "{\\"k\\": \\"v\\"}"' in script
    assert "function delay()" not in script


def test_pause_between_requests() -> None:
    assert "function delay() return 100 end" in script_of({}, b"{}", 100)


def test_rates_of_a_load() -> None:
    load = Load(4000, 2_000_000, 0, 1, 1, 1, 1, 1, generator_cpu_s=0.1)
    assert load.per_second == 2000
    assert load.generator_cpu_us == pytest.approx(25)


@pytest.mark.parametrize("size_bytes", [64, 1024, 6 * 1024 * 1024])
def test_bodies_are_json_of_exactly_that_size(size_bytes: int) -> None:
    body = body_of(size_bytes)
    assert len(body) == size_bytes
    assert set(json.loads(body)["text"]) == {"x"}


def test_table_and_plots(tmp_path) -> None:  # type: ignore[no-untyped-def]
    figures = [
        Figure(
            name=f"warm.python.{clients}.p50", value=clients * 300, unit="us", n=9, yardstick=100, goal="low"
        )
        for clients in (1, 8)
    ]
    text = table(figures)
    assert len(text.splitlines()) == 3
    assert text.splitlines()[1].split() == ["warm.python.1.p50", "300", "us", "9", "100", "3.00", "low"]
    record = {"warm": Measured(figures=figures, machine={}, load_before=0, seconds=1)}
    assert [file.name for file in draw(record, tmp_path)] == ["warm-latency.svg"]


@pytest.mark.parametrize(("value", "shown"), [(12345.6, "12,346"), (45.67, "45.7"), (0.1234, "0.123")])
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_markdown_shows_what_can_be_judged() -> None:
    figures = [
        Figure(name="warm.a", value=250, unit="us", n=9, yardstick=100, goal="under 4x"),
        Figure(name="warm.cost", value=1, unit="us", n=9),
    ]
    measured = Measured(figures=figures, machine={"cpu": "X"}, load_before=0.26, seconds=1)
    text = markdown({"warm": measured})
    assert "cpu X; load average before: 0.3" in text
    assert "| warm.a | 250 us | 9 | 100 | 2.50 | under 4x |" in text
    assert "warm.cost" not in text


def test_what_lies_between_markers_is_replaced() -> None:
    assert between("a<s>old<e>b", "<s>", "<e>", "new") == "a<s>\n\nnew\n\n<e>b"
    with pytest.raises(ValueError, match="no <s>"):
        between("a<s>", "<s>", "<e>", "new")
