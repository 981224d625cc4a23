"""What the commands show: tables for people, JSON for programs, remarks on standard error.

Tables are laid out here rather than by rich, whose import alone takes longer than most commands.
"""

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import typer

GAP = "  "
LAST_COLUMN_MIN = 24
"""Where less room than this is left, the terminal's own wrapping reads better than a narrow column."""


def show_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


def show_json_line(value: Any, stream: TextIO) -> None:
    """One JSON document in a line of its own."""
    stream.write(json.dumps(value, default=str, ensure_ascii=False) + "\n")


def say(text: str, **style: Any) -> None:
    """A remark on standard error; ``style`` as typer.style takes it."""
    sys.stderr.write(styled(text, sys.stderr, **style) + "\n")
    sys.stderr.flush()


def styled(text: str, stream: TextIO, **style: Any) -> str:
    """Coloured on a terminal, plain elsewhere and where NO_COLOR is set."""
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return typer.style(text, **style)


def show_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    empty: str,
    colours: Mapping[str, str] | None = None,
) -> None:
    """A table on standard output, or ``empty`` on standard error where there is no row.

    ``colours`` gives words of the first column a colour.
    """
    if not rows:
        say(empty)
        return
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    header, *body = table_lines([columns, *rows], width)
    painted = [_painted(line, colours or {}) for line in body]
    sys.stdout.write("\n".join([styled(header, sys.stdout, bold=True), *painted]) + "\n")


def table_lines(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Rows with their columns aligned; the last column is wrapped within ``width`` characters if given."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    indent = sum(widths) + len(GAP) * len(widths)
    room = width - indent if width is not None and width - indent >= LAST_COLUMN_MIN else None
    lines: list[str] = []
    for row in rows:
        start = "".join(cell.ljust(most) + GAP for cell, most in zip(row, widths, strict=False))
        for number, part in enumerate(_wrapped(row[-1], room)):
            lines.append(((start if number == 0 else " " * indent) + part).rstrip())
    return lines


def _painted(line: str, colours: Mapping[str, str]) -> str:
    word = line.partition(" ")[0]
    return styled(word, sys.stdout, fg=colours[word]) + line[len(word) :] if word in colours else line


def _wrapped(text: str, room: int | None) -> list[str]:
    parts: list[str] = []
    for line in text.split("\n"):
        cut = [line] if room is None else textwrap.wrap(line, room, break_long_words=False)
        parts.extend(cut or [""])
    return parts


def size(count_bytes: float) -> str:
    """1536 -> ``1.5 KB``."""
    for unit in ("B", "KB", "MB", "GB"):
        if count_bytes < 1024 or unit == "GB":
            return f"{count_bytes:.0f} {unit}" if unit == "B" else f"{count_bytes:.1f} {unit}"
        count_bytes /= 1024
    raise AssertionError


def age(seconds: float) -> str:
    """75 -> ``1m15s``, 90000 -> ``1d01h``."""
    minutes, whole_seconds = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole_seconds:02d}s" if minutes else f"{whole_seconds}s"
