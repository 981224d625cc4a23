"""Whether figures got worse than the landed ones, judged by their ratios to a yardstick of the same run, so that
a faster or busier machine does not decide. Pure.
"""

from collections.abc import Iterable

import msgspec

from bench.figures import Figure


class Change(msgspec.Struct, frozen=True):
    """A figure in both runs. ``worse`` is 0.2 for 20 % worse and negative for better."""

    name: str
    ratio: float
    landed: float
    worse: float
    failed: bool


def compare(figures: Iterable[Figure], landed: Iterable[Figure], slack: float = 1.0) -> list[Change]:
    """Every figure that has a ratio in both, worst first; ``slack`` multiplies all tolerances."""
    before = {figure.name: figure for figure in landed}
    changes: list[Change] = []
    for figure in figures:
        old = before.get(figure.name)
        if old is None or not figure.ratio or not old.ratio:
            continue
        worse = old.ratio / figure.ratio - 1 if figure.higher_is_better else figure.ratio / old.ratio - 1
        failed = figure.tolerance is not None and worse > figure.tolerance * slack
        changes.append(Change(figure.name, figure.ratio, old.ratio, worse, failed))
    return sorted(changes, key=lambda change: -change.worse)


def vanished(figures: Iterable[Figure], landed: Iterable[Figure]) -> list[str]:
    """Names that a regression could hide behind: landed with a ratio, and not measured any more."""
    now = {figure.name for figure in figures if figure.ratio}
    return sorted(figure.name for figure in landed if figure.ratio and figure.name not in now)
