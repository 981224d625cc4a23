"""``stoker invoke``: run a function and print its result; the log goes to standard error."""

import base64
import sys
from pathlib import Path
from typing import Annotated

import typer

from stoker.cli.connection import client
from stoker.cli.output import errors, show_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("invoke", help="Invoke a function and print its result.")(invoke)


def invoke(
    name: Annotated[str, typer.Argument(help="Function name or ARN.")],
    payload: Annotated[str, typer.Argument(help="JSON, @FILE, or - for standard input.")] = "{}",
    event: Annotated[bool, typer.Option("--event", help="Asynchronously: return at once.")] = False,
    tail: Annotated[bool, typer.Option("--tail", help="Show the last 4 KB of its log.")] = False,
    data: Annotated[Path | None, typer.Option(help="The running service's data folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer as JSON.")] = False,
) -> None:
    """Invoke a function; exits with 1 when the function failed."""
    answer = client("lambda", data).invoke(
        FunctionName=name,
        Payload=_payload(payload),
        InvocationType="Event" if event else "RequestResponse",
        LogType="Tail" if tail and not event else "None",
    )
    result = answer["Payload"].read().decode(errors="replace")
    log = base64.b64decode(answer.get("LogResult", "")).decode(errors="replace")
    failed = answer.get("FunctionError")
    if as_json:
        show_json(
            {
                "StatusCode": answer["StatusCode"],
                "FunctionError": failed,
                "ExecutedVersion": answer.get("ExecutedVersion"),
                "Payload": result,
                "Log": log or None,
            }
        )
    else:
        if log:
            errors.print(log.rstrip(), style="dim", markup=False, highlight=False)
        if result:
            sys.stdout.write(result + "\n")
        if failed:
            errors.print(f"function error: {failed}", style="red")
    if failed:
        raise typer.Exit(1)


def _payload(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        return Path(text[1:]).read_bytes()
    return text.encode()
