"""``stoker logs``: a function's log, once or as it grows."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from botocore.exceptions import ClientError

from stoker.cli.connection import client
from stoker.cli.output import show_json

POLL_S = 0.5
OVERLAP_MS = 5_000
"""Lines are written a moment behind; how far back each look goes, so that none is missed."""
SEEN_MAX = 20_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("logs", help="Show a function's log.")(logs)


def logs(
    name: Annotated[str, typer.Argument(help="Function name, or a log group (with a slash).")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows.")] = False,
    since: Annotated[float, typer.Option(help="Minutes to look back.")] = 60.0,
    pattern: Annotated[str, typer.Option("--filter", help="A CloudWatch Logs filter pattern.")] = "",
    data: Annotated[Path | None, typer.Option(help="The running service's data folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON: an array, or one object a line.")] = False,
) -> None:
    """Show a function's log."""
    group = name if "/" in name else f"/aws/lambda/{name}"
    reader = _Reader(client("logs", data), group, pattern, int((time.time() - since * 60) * 1000))
    events = reader.new_events(missing_is_error=not follow)
    if as_json and not follow:
        show_json(events)
        return
    while True:
        for event in events:
            _print(event, as_json=as_json)
        sys.stdout.flush()
        if not follow:
            return
        time.sleep(POLL_S)
        events = reader.new_events(missing_is_error=False)


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
        except ClientError as problem:
            if missing_is_error or problem.response["Error"]["Code"] != "ResourceNotFoundException":
                raise
        self._remember(fresh)
        return fresh

    def _remember(self, fresh: list[dict[str, Any]]) -> None:
        for event in fresh:
            self._seen[event["eventId"]] = None
            self._start_ms = max(self._start_ms, event["timestamp"] - OVERLAP_MS)
        while len(self._seen) > SEEN_MAX:
            del self._seen[next(iter(self._seen))]


def _print(event: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show_json(event)
        return
    when = datetime.fromtimestamp(event["timestamp"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    sys.stdout.write(f"{when} {event['message'].rstrip()}\n")
