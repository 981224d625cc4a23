"""``stoker ps``: every sandbox with its state, function, age and memory."""

import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stoker.app.admin_client import AdminClient
from stoker.cli.connection import data_directory
from stoker.cli.output import age, show_json, show_table, size


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ps", help="List the sandboxes of this host.")(ps)


def ps(
    data: Annotated[Path | None, typer.Option(help="The running service's data folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """List the sandboxes of this host."""
    sandboxes = AdminClient(data_directory(data)).sandboxes()
    if as_json:
        show_json(msgspec.to_builtins(sandboxes))
        return
    now = time.time()
    show_table(
        ("SANDBOX", "STATE", "FUNCTION", "AGE", "IDLE", "INVOCATIONS", "MEMORY"),
        (
            (
                box.sandbox_id[:12],
                box.state,
                box.function_arn.partition(":function:")[2] or box.function_arn,
                age(now - box.created_at_s),
                age(now - box.last_used_at_s),
                str(box.invocations),
                f"{size(box.memory_used_bytes)} / {box.memory_mb} MB",
            )
            for box in sandboxes
        ),
        empty="no sandbox",
    )
