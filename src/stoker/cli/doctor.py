"""``stoker doctor``: what this host offers, what is missing, and what degrades without it."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stoker.app.admin_client import AdminClient, ServiceNotRunning
from stoker.app.host import Finding, examine
from stoker.cli.connection import data_directory
from stoker.cli.output import console, show_json, show_table

MARKS = {"ok": "[green]ok[/]", "degraded": "[yellow]degraded[/]", "missing": "[red]missing[/]"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", help="Say what this host offers and what is missing.")(doctor)


def doctor(
    data: Annotated[Path | None, typer.Option(help="The service's data folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Exits with 1 when something is missing without which no function can run."""
    folder = data_directory(data)
    findings = [*examine(folder), *_running_service(folder)]
    if as_json:
        show_json(msgspec.to_builtins(findings))
    else:
        show_table(
            ("", "WHAT", "FOUND", "CONSEQUENCE"),
            ((MARKS[item.verdict], item.what, item.found, item.consequence) for item in findings),
            empty="",
        )
        if all(item.verdict == "ok" for item in findings):
            console.print("everything is here")
    if any(item.verdict == "missing" for item in findings):
        raise typer.Exit(1)


def _running_service(folder: Path) -> list[Finding]:
    try:
        report = AdminClient(folder).host()
    except ServiceNotRunning:
        return [Finding("ok", "service", "not running", "its own view is not shown here")]
    running = Finding("ok", "service", f"stoker {report.version}, driver {report.driver}", "")
    runtimes = Finding("ok", "runtimes", ", ".join(report.runtimes) or "none", "")
    degraded = [Finding("degraded", "service", reason, "") for reason in report.degraded]
    return [running, runtimes, *degraded]
