"""Medians and tails of samples, and what a pair of Prometheus pages says happened between them. Pure."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

_LINE = re.compile(r"^([a-zA-Z_:][\w:]*(?:\{[^}]*\})?) ([^ ]+)$")


def percentile(samples: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest sample that ``percent`` % of all do not exceed.

    Raises:
        ValueError: there are no samples, or ``percent`` is not within 0 to 100.
    """
    ordered = sorted(samples)
    if not ordered or not 0 <= percent <= 100:
        raise ValueError(f"no percentile {percent} of {len(ordered)} samples")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def median(samples: Sequence[float]) -> float:
    """The middle, or the mean of the two in the middle."""
    ordered = sorted(samples)
    if not ordered:
        raise ValueError("no median of no samples")
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def parse_metrics(page: str) -> dict[str, float]:
    """Every sample of a page in Prometheus' text format, by name and labels as they are written."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        match = _LINE.match(line)
        if match:
            found[match[1]] = float(match[2])
    return found


def grown(before: Mapping[str, float], after: Mapping[str, float], name: str) -> float:
    """How much one counter grew; 0 where the service does not have it."""
    return after.get(name, 0.0) - before.get(name, 0.0)


def mean_ms(
    before: Mapping[str, float], after: Mapping[str, float], histogram: str
) -> tuple[float, int] | None:
    """Mean in milliseconds and count of what a histogram in seconds took in; None when that is nothing."""
    count = grown(before, after, f"{histogram}_count")
    if count <= 0:
        return None
    return grown(before, after, f"{histogram}_sum") / count * 1000, round(count)
