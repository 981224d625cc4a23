"""``stoker logs``: a function's log, once or as it grows."""

import re
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from stoker.cli.connection import DataOption, client
from stoker.cli.output import say, show_json, show_json_line

POLL_S = 0.5
OVERLAP_MS = 5_000
"""Lines are written a moment behind; how far back each look goes, so that none is missed."""
SEEN_MAX = 20_000
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("logs", help="Show a function's log.")(logs)


def logs(
    name: Annotated[str, typer.Argument(help="Function name, or a log group (with a slash).")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows.")] = False,
    since: Annotated[str, typer.Option(help="How far to look back: 90s, 15m, 2h, 7d.")] = "1h",
    pattern: Annotated[str, typer.Option("--filter", help="A CloudWatch Logs filter pattern.")] = "",
    data: DataOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A JSON array; with --follow one object a line.")
    ] = False,
) -> None:
    """Show a function's log; times are UTC."""
    start_ms = int((time.time() - look_back_s(since)) * 1000)
    group = name if "/" in name else f"/aws/lambda/{name}"
    reader = _Reader(client("logs", data), group, pattern, start_ms)
    events = reader.new_events(missing_is_error=not follow)
    if as_json and not follow:
        show_json(events)
        return
    if not events and not follow:
        say(f"nothing was logged within the last {since}; --since looks further back")
    while True:
        for event in events:
            _show(event, as_json=as_json)
        sys.stdout.flush()
        if not follow:
            return
        time.sleep(POLL_S)
        events = reader.new_events(missing_is_error=False)


def look_back_s(text: str) -> float:
    """``15m`` -> 900 seconds.

    Raises:
        typer.BadParameter: it is not a number with a unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a time such as 90s, 15m, 2h or 7d", param_hint="'--since'")
    return float(match[1]) * UNITS_S[match[2]]


def event_line(event: dict[str, Any]) -> str:
    """One event as people read it: time in UTC, then its text."""
    when = datetime.fromtimestamp(event["timestamp"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return f"{when} {event['message'].rstrip()}"


class _Reader:
    """Remembers what was shown, within a bound."""

    def __init__(self, service: Any, group: str, pattern: str, start_ms: int) -> None:
        self._service = service
        self._request: dict[str, Any] = {"logGroupName": group}
        if pattern:
            self._request["filterPattern"] = pattern
        self._start_ms = start_ms
        self._seen: dict[str, None] = {}

    def new_events(self, *, missing_is_error: bool) -> list[dict[str, Any]]:
        fresh: list[dict[str, Any]] = []
        try:
            pages = self._service.get_paginator("filter_log_events").paginate(
                **self._request, startTime=self._start_ms
            )
            for page in pages:
                fresh.extend(event for event in page["events"] if event["eventId"] not in self._seen)
        except self._service.exceptions.ResourceNotFoundException:
            if missing_is_error:
                raise
        self._remember(fresh)
        return fresh

    def _remember(self, fresh: list[dict[str, Any]]) -> None:
        for event in fresh:
            self._seen[event["eventId"]] = None
            self._start_ms = max(self._start_ms, event["timestamp"] - OVERLAP_MS)
        while len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]


def _show(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json_line(event, sys.stdout)
    else:
        sys.stdout.write(event_line(event) + "\n")
