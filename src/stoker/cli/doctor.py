"""``stoker doctor``: what this host offers, what is missing, and what degrades without it."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stoker.app.findings import Finding
from stoker.app.host import examine
from stoker.cli.connection import DataOption, admin, data_directory
from stoker.cli.output import say, show_json, show_table

COLOURS = {"ok": "green", "degraded": "yellow", "missing": "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", help="Say what this host offers and what is missing.")(doctor)


def doctor(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Exits with 1 when something is missing without which no function can run."""
    folder = data_directory(data)
    findings = [*examine(folder), *_running_service(folder)]
    if as_json:
        show_json(msgspec.to_builtins(findings))
    else:
        show_table(
            ("", "WHAT", "FOUND"),
            [(item.verdict, item.what, found_and_consequence(item)) for item in findings],
            empty="",
            colours=COLOURS,
        )
        say(verdict(findings))
    if any(item.verdict == "missing" for item in findings):
        raise typer.Exit(1)


def found_and_consequence(item: Finding) -> str:
    """The last column: what is there, and below it what follows from that."""
    return f"{item.found}\n→ {item.consequence}" if item.consequence else item.found


def verdict(findings: list[Finding]) -> str:
    """One sentence over all findings."""
    found = {item.verdict for item in findings}
    if "missing" in found:
        return "functions cannot run here until what is missing is there"
    if "degraded" in found:
        return "functions run here, with less where it says degraded"
    return "everything is here"


def _running_service(folder: Path) -> list[Finding]:
    from stoker.app.admin_client import ServiceNotRunning  # noqa: PLC0415  (as in connection.admin)

    try:
        report = admin(folder).host()
    except ServiceNotRunning as problem:
        return [Finding("ok", "service", "not running", str(problem))]
    running = Finding("ok", "service", f"stoker {report.version}, driver {report.driver}")
    runtimes = Finding("ok", "runtimes", ", ".join(report.runtimes) or "none")
    degraded = [Finding("degraded", "service", reason) for reason in report.degraded]
    return [running, runtimes, *degraded]
