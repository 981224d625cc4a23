"""``./dev bench [NAME ...]``: every measure, or some by their module's name.

Prints a table and writes bench/results/: latest.json and plots. ``--check`` compares the ratios with
bench/landed.json and fails when one got worse, or when nothing landed to compare with; ``--land`` makes this run
the landed one and writes its tables into docs/performance.md.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path
from types import ModuleType

from bench.comparison import compare, vanished
from bench.figures import (
    LANDED,
    LATEST,
    RESULTS,
    Measured,
    Missing,
    Options,
    Record,
    read_record,
    write_record,
)
from bench.machine import describe, is_busy, load_average
from bench.report import between, changes_table, draw, markdown, table

NAMES = (
    "warm",
    "payloads",
    "phases",
    "rising",
    "creation",
    "control",
    "density",
    "fairness",
    "events",
    "streams",
    "peers",
    "egress",
    "bootstrap",
    "startup",
    "flatten",
    "images",
    "volume",
)

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
START, END = "<!-- figures -->", "<!-- end of figures -->"


def main() -> int:
    """Run what was asked for; 1 when a ratio got worse than allowed."""
    parser = _parser()
    arguments = parser.parse_args()
    names = arguments.names or list(NAMES)
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(NAMES)}")
    if is_busy():
        print(f"this machine is busy (load average {load_average():.2f}): absolute figures mean little")
        if arguments.quiet:
            return 2
    options = Options(
        seconds=arguments.seconds,
        cold_starts=arguments.cold_starts,
        sandboxes=arguments.sandboxes,
        creations=arguments.creations,
    )
    sys.argv[1:] = []  # measures with a command line of their own take their defaults
    record: Record = {}
    for name in names:
        run(name, options, record)
    write_record(LATEST, read_record(LATEST) | record)
    for file in draw(read_record(LATEST), RESULTS):
        print(f"plot: {file}")
    failed = check(record, arguments.slack) if arguments.check else False
    if arguments.land:
        land(record)
    return int(failed)


def run(name: str, options: Options, record: Record) -> None:
    """One measure: its table now, its figures into the record. A module with only a ``main`` prints by itself."""
    print(f"\n== {name}", flush=True)
    module: ModuleType = importlib.import_module(f"bench.{name}")
    if not hasattr(module, "measure"):
        module.main()
        return
    load, begun_s = load_average(), time.monotonic()
    try:
        figures = module.measure(options)
    except Missing as missing:
        print(f"skipped: {missing}")
        return
    print(table(figures), flush=True)
    record[name] = Measured(
        figures=figures,
        machine=describe(),
        load_before=load,
        seconds=round(time.monotonic() - begun_s, 1),
    )


def check(record: Record, slack: float) -> bool:
    """Show every ratio beside the landed one; whether any got worse than its tolerance, or was not measured."""
    landed = read_record(LANDED)
    failed = False
    for name, measured in record.items():
        if name not in landed:
            print(f"\n{name}: nothing landed to compare with")
            failed = True
            continue
        before = landed[name].figures
        changes = compare(measured.figures, before, slack)
        print(f"\n== {name}: against the landed run\n{changes_table(changes)}")
        gone = vanished(measured.figures, before)
        for figure in gone:
            print(f"not measured any more: {figure}")
        failed = failed or bool(gone) or any(change.failed for change in changes)
    return failed


def land(record: Record) -> None:
    """Make this run the one to compare with, and the one that the documentation shows."""
    landed = read_record(LANDED) | record
    write_record(LANDED, landed)
    DOCUMENT.write_text(between(DOCUMENT.read_text(), START, END, markdown(landed)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="./dev bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = Options()
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    add("--check", action="store_true", help="fail when a ratio is worse than the landed one")
    add("--land", action="store_true", help="write this run's figures to bench/landed.json")
    add("--slack", type=float, default=1.0, help="multiplies the tolerances of --check")
    add("--quiet", action="store_true", help="refuse to measure on a busy machine instead of warning")
    add("--seconds", type=float, default=defaults.seconds, help="length of each run under load")
    add("--cold-starts", type=int, default=defaults.cold_starts, help="per runtime and mode")
    add("--sandboxes", type=int, default=defaults.sandboxes, help="idle at once, for density")
    add("--creations", type=int, default=defaults.creations, help="sandboxes that are timed one by one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
