"""``stoker events``: asynchronous events that wait, and records that destinations have not taken."""

import time
from typing import Annotated

import msgspec
import typer

from stoker.cli.connection import DataOption, admin
from stoker.cli.output import age, show_json, show_table, size


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("events", help="Show what waits in the queue of asynchronous events.")(events)


def events(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
) -> None:
    """Show what waits in the queue of asynchronous events, by function and by destination."""
    report = admin(data).events()
    if as_json:
        show_json(msgspec.to_builtins(report))
        return
    now_s = time.time()
    show_table(
        ("WAITING", "RUNNING", "RETRIED", "ATTEMPTS", "SIZE", "OLDEST", "NEXT IN", "FUNCTION"),
        [
            (
                str(row.waiting),
                str(row.taken),
                str(row.retried),
                str(row.attempts_max),
                size(row.size_bytes),
                age(now_s - row.oldest_accepted_at_s),
                "" if row.next_due_at_s is None else age(row.next_due_at_s - now_s),
                row.function_arn.partition(":function:")[2],
            )
            for row in report.events
        ],
        empty="no event waits",
    )
    if report.deliveries:
        show_table(
            ("WAITING", "RECORD", "FAILURES", "OLDEST", "NEXT IN", "FUNCTION", "DESTINATION"),
            [
                (
                    str(row.waiting),
                    row.kind,
                    str(row.failures_max),
                    age(now_s - row.oldest_created_at_s),
                    age(row.next_due_at_s - now_s),
                    row.function_arn.partition(":function:")[2],
                    row.destination,
                )
                for row in report.deliveries
            ],
            empty="",
        )
