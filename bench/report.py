"""Shows figures: the table, and the plots of a run."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.comparison import Change
from bench.figures import Figure, Record
from bench.svg import line_chart, stacked_bars

CLIENTS = (1, 8, 32, 128)
SIZES_KB = {"1k": 1, "16k": 16, "128k": 128, "1m": 1024, "6m": 6144}
PHASES = ("reserve", "sandbox", "mount", "assign", "launch", "init", "duration")
ROW = "{:36} {:>12} {:9} {:>8} {:>12} {:>7}  {}"


def table(figures: Iterable[Figure]) -> str:
    """A line per figure: value, unit, samples, the yardstick of the same run and the ratio."""
    lines = [ROW.format("measure", "value", "unit", "n", "yardstick", "ratio", "yardstick's name; goal")]
    for figure in figures:
        notes = "; goal: ".join(filter(None, (figure.yardstick_name, figure.goal)))
        lines.append(
            ROW.format(
                figure.name,
                number(figure.value),
                figure.unit,
                f"{figure.n:,}",
                number(figure.yardstick) if figure.yardstick is not None else "",
                f"{figure.ratio:.2f}" if figure.ratio is not None else "",
                notes,
            ).rstrip()
        )
    return "\n".join(lines)


def number(value: float) -> str:
    """Three digits that matter."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def markdown(record: Record) -> str:
    """Figures that can be judged, a table per measure, with the machine they come from; latest.json has them all."""
    parts: list[str] = []
    for name, measured in record.items():
        machine = ", ".join(f"{key} {value}" for key, value in measured.machine.items())
        parts.append(f"### {name}\n\n{machine}; load average before: {measured.load_before:.1f}\n")
        parts.append(
            "| measure | value | n | yardstick | ratio | goal |\n| --- | --- | --- | --- | --- | --- |"
        )
        parts += [_markdown_row(figure) for figure in measured.figures if _is_shown(figure)]
        parts.append("")
    return "\n".join(parts)


def _is_shown(figure: Figure) -> bool:
    between_median_and_tail = figure.name.endswith((".p90", ".p999"))
    return bool(figure.yardstick or figure.goal) and not between_median_and_tail


def _markdown_row(figure: Figure) -> str:
    yardstick = number(figure.yardstick) if figure.yardstick is not None else "–"
    ratio = f"{figure.ratio:.2f}" if figure.ratio is not None else "–"
    value = f"{number(figure.value)} {figure.unit}"
    return f"| {figure.name} | {value} | {figure.n:,} | {yardstick} | {ratio} | {figure.goal or '–'} |"


def between(text: str, start: str, end: str, new: str) -> str:
    """The text with what lies between two markers replaced.

    Raises:
        ValueError: a marker is missing.
    """
    head, found, rest = text.partition(start)
    _, found_end, tail = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"no {start} ... {end}")
    return f"{head}{start}\n\n{new.strip()}\n\n{end}{tail}"


def changes_table(changes: Sequence[Change]) -> str:
    """Ratios then and now, failures marked."""
    lines = [f"{'ratio to the yardstick':36} {'landed':>8} {'now':>8} {'worse':>8}"]
    for change in changes:
        mark = "  REGRESSION" if change.failed else ""
        lines.append(f"{change.name:36} {change.landed:8.2f} {change.ratio:8.2f} {change.worse:+8.0%}{mark}")
    return "\n".join(lines)


def draw(record: Record, folder: Path) -> list[Path]:
    """Every plot whose figures are there."""
    values = {figure.name: figure.value for measured in record.values() for figure in measured.figures}
    charts = {
        "warm-latency": _lines(
            values, "Warm echo of 1 KB: latency", "clients", "us", _by_clients("p50") | _by_clients("p99")
        ),
        "warm-throughput": _lines(
            values, "Warm echo of 1 KB: throughput", "clients", "calls/s", _by_clients("rate")
        ),
        "payloads": _lines(
            values,
            "Echo of larger bodies, one client: median",
            "KiB",
            "ms",
            {label: f"payload.{label}.{{}}.p50" for label in ("python", "node", "provided")},
        ),
        "cold-phases": _phases(values),
    }
    folder.mkdir(exist_ok=True)
    written: list[Path] = []
    for name, chart in charts.items():
        if chart:
            file = folder / f"{name}.svg"
            file.write_text(chart)
            written.append(file)
    return written


def _by_clients(part: str) -> dict[str, str]:
    found = {f"{label} {part}": f"warm.{label}.{{}}.{part}" for label in ("python", "node", "provided")}
    return found | {f"bare hello {part}": f"hello.{{}}.{part}"}


def _lines(values: dict[str, float], title: str, x: str, y: str, patterns: dict[str, str]) -> str:
    ticks = SIZES_KB if "KiB" in x else {str(clients): clients for clients in CLIENTS}
    lines = {
        label: [
            (float(at), values[pattern.format(tick)])
            for tick, at in ticks.items()
            if pattern.format(tick) in values
        ]
        for label, pattern in patterns.items()
    }
    present = {label: line for label, line in lines.items() if line}
    return line_chart(title, x, y, present) if present else ""


def _phases(values: dict[str, float]) -> str:
    bars: dict[str, dict[str, float]] = {}
    for mode in ("pool", "empty"):
        for label in ("python", "node", "provided"):
            names = {phase: f"cold.{mode}.{label}.phase_{phase}" for phase in PHASES}
            bar = {phase: values[name] for phase, name in names.items() if name in values}
            if bar:
                bars[f"{label}, {mode}"] = bar
    return stacked_bars("Cold start by phase", "ms, mean", bars) if bars else ""
