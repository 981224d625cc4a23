"""Charts are well-formed SVG and show what they were given where it belongs."""

import re
from xml.etree import ElementTree

import pytest

from bench.svg import HEIGHT, WIDTH, Axis, line_chart, stacked_bars

SVG = "{http://www.w3.org/2000/svg}"
LINES = {"a < b & c": [(1.0, 200.0), (8.0, 900.0), (128.0, 40_000.0)], "other": [(1.0, 60.0)]}


def texts(document: ElementTree.Element) -> list[str | None]:
    return [element.text for element in document.iter(f"{SVG}text")]


@pytest.mark.parametrize("log", [True, False])
def test_line_chart(log: bool) -> None:
    document = ElementTree.fromstring(line_chart("title", "clients", "us", LINES, log=log))
    assert len(list(document.iter(f"{SVG}polyline"))) == 2
    assert len(list(document.iter(f"{SVG}circle"))) == 4
    assert {"title", "clients", "us", "a < b & c", "other", "128"} <= set(texts(document))
    for circle in document.iter(f"{SVG}circle"):
        assert 0 < float(circle.get("cx", "")) < WIDTH
        assert 0 < float(circle.get("cy", "")) < HEIGHT


def test_larger_is_further_up_and_right() -> None:
    document = ElementTree.fromstring(line_chart("t", "x", "y", {"a": LINES["a < b & c"]}))
    places = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in document.iter(f"{SVG}circle")]
    assert places == sorted(places, key=lambda place: place[0])
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)


def test_bars_are_stacked() -> None:
    bars = {"python": {"sandbox": 2.0, "init": 3.0}, "node": {"init": 8.0}}
    document = ElementTree.fromstring(stacked_bars("cold", "ms", bars))
    wide = [r for r in document.iter(f"{SVG}rect") if float(r.get("width", "0")) not in (12, WIDTH)]
    assert len(wide) == 3
    first, second = wide[0], wide[1]
    assert float(second.get("y", "")) + float(second.get("height", "")) == pytest.approx(
        float(first.get("y", "")), abs=0.2
    )
    heights = [float(r.get("height", "")) for r in wide]
    assert heights[2] / heights[0] == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [1.0, 1e6], [0.25, 0.3]])
@pytest.mark.parametrize("log", [True, False])
def test_ticks_stay_on_the_axis(values: list[float], log: bool) -> None:
    axis = Axis(values, 100, 500, log=log)
    ticks = axis.ticks()
    assert len(ticks) <= 12
    assert all(99.9 <= axis.at(tick) <= 500.1 for tick in ticks)


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        line_chart("t", "x", "y", {})
    with pytest.raises(ValueError, match="nothing to draw"):
        stacked_bars("t", "y", {"a": {}})


def test_numbers_are_plain() -> None:
    assert not re.search(r"nan|inf", line_chart("t", "x", "y", {"flat": [(1.0, 3.0)]}))
