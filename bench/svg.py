"""Draws line and bar charts as SVG text: axes with ticks, a legend, linear or logarithmic scales. Pure."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 48, 64
COLOURS = ("#1f5fa8", "#c8501e", "#2d8a4e", "#8a3d9c", "#b8961a", "#4a4a4a", "#19959c", "#b0305c")
Points = Sequence[tuple[float, float]]


class Axis:
    """Maps values to pixels."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, log: bool) -> None:
        self.log = log and min(values) > 0
        low, high = min(values), max(values)
        if not self.log:
            low = min(0.0, low)
        self.low = self._scaled(low)
        self.high = self._scaled(high)
        if self.high <= self.low:
            self.high = self.low + 1
        self.start, self.end = start, end

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def at(self, value: float) -> float:
        """The pixel of a value."""
        share = (self._scaled(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Round values within the axis."""
        if self.log:
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            wanted = [base * 10.0**power for power in decades for base in (1, 2, 5)]
            inside = [tick for tick in wanted if self.low - 1e-9 <= self._scaled(tick) <= self.high + 1e-9]
            return inside if len(inside) <= 10 else [tick for tick in inside if f"{tick:e}".startswith("1")]
        raw = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
        first = math.ceil(self.low / step)
        return [step * index for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def line_chart(
    title: str, x_label: str, y_label: str, lines: Mapping[str, Points], *, log: bool = True
) -> str:
    """One polyline with markers per entry; with ``log`` both axes are logarithmic where values allow."""
    points = [point for line in lines.values() for point in line]
    if not points:
        raise ValueError(f"nothing to draw for {title!r}")
    x = Axis([point[0] for point in points], LEFT, WIDTH - RIGHT, log=log)
    y = Axis([point[1] for point in points], HEIGHT - BOTTOM, TOP, log=log)
    parts = _frame(title, x_label, y_label, y)
    for value in sorted({point[0] for point in points}):
        parts.append(_text(x.at(value), HEIGHT - BOTTOM + 18, _number(value), "middle"))
    for number, (label, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x.at(at)},{y.at(value)}" for at, value in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x.at(at)}" cy="{y.at(value)}" r="3.5" fill="{colour}"/>' for at, value in line
        ]
        parts += _legend(number, label, colour)
    return _document(parts)


def stacked_bars(title: str, y_label: str, bars: Mapping[str, Mapping[str, float]]) -> str:
    """One bar per entry, made of named pieces from the bottom up."""
    if not any(bars.values()):
        raise ValueError(f"nothing to draw for {title!r}")
    pieces = list(dict.fromkeys(piece for bar in bars.values() for piece in bar))
    y = Axis([sum(bar.values()) for bar in bars.values()], HEIGHT - BOTTOM, TOP, log=False)
    parts = _frame(title, "", y_label, y)
    slot = (WIDTH - RIGHT - LEFT) / len(bars)
    for index, (label, bar) in enumerate(bars.items()):
        left, below = round(LEFT + slot * (index + 0.2), 1), 0.0
        parts.append(_text(LEFT + slot * (index + 0.5), HEIGHT - BOTTOM + 18, label, "middle"))
        for piece, value in bar.items():
            top, bottom = y.at(below + value), y.at(below)
            colour = COLOURS[pieces.index(piece) % len(COLOURS)]
            parts.append(
                f'<rect x="{left}" y="{top}" width="{slot * 0.6:.1f}" height="{bottom - top:.1f}" fill="{colour}"/>'
            )
            below += value
    for number, piece in enumerate(pieces):
        parts += _legend(number, piece, COLOURS[number % len(COLOURS)])
    return _document(parts)


def _frame(title: str, x_label: str, y_label: str, y: Axis) -> list[str]:
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 26, title, "start", size=16),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 20, x_label, "middle"),
        _text(LEFT - 58, TOP - 8, y_label, "start"),
    ]
    for tick in y.ticks():
        at = y.at(tick)
        parts.append(f'<line x1="{LEFT}" y1="{at}" x2="{WIDTH - RIGHT}" y2="{at}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, at + 4, _number(tick), "end"))
    return parts


def _legend(number: int, label: str, colour: str) -> list[str]:
    top = TOP + 20 * number
    left = WIDTH - RIGHT + 16
    swatch = f'<rect x="{left}" y="{top}" width="12" height="12" fill="{colour}"/>'
    return [swatch, _text(left + 18, top + 11, label, "start")]


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:g}"


def _document(parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" fill="#222">\n{body}\n</svg>\n'
    )
