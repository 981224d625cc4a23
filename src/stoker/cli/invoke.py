"""``stoker invoke``: run a function and print its result; the log goes to standard error."""

import base64
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stoker.cli.connection import DataOption, client
from stoker.cli.output import say, show_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("invoke", help="Invoke a function and print its result.")(invoke)


def invoke(
    name: Annotated[str, typer.Argument(help="Function name or ARN.")],
    payload: Annotated[str, typer.Argument(help="JSON, @FILE, or - for standard input.")] = "{}",
    event: Annotated[bool, typer.Option("--event", help="Asynchronously: return at once.")] = False,
    tail: Annotated[bool, typer.Option("--tail", help="Show the last 4 KB of its log.")] = False,
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole answer as JSON.")] = False,
) -> None:
    """Invoke a function; exits with 1 when the function failed."""
    body = read_payload(payload)
    answer = client("lambda", data).invoke(
        FunctionName=name,
        Payload=body,
        InvocationType="Event" if event else "RequestResponse",
        LogType="Tail" if tail and not event else "None",
    )
    result = answer["Payload"].read()
    log = base64.b64decode(answer.get("LogResult", "")).decode(errors="replace")
    if as_json:
        show_json(answer_record(answer, result, log))
    else:
        _show(result, log, accepted=event)
    failed = answer.get("FunctionError")
    if failed:
        if not as_json:
            say(f"stoker: the function failed ({failed})", fg="red")
        raise typer.Exit(1)


def answer_record(answer: dict[str, Any], result: bytes, log: str) -> dict[str, Any]:
    """What ``--json`` shows: ``Payload`` decoded, or ``PayloadBase64`` for bytes that are not JSON."""
    record: dict[str, Any] = {
        "StatusCode": answer["StatusCode"],
        "FunctionError": answer.get("FunctionError"),
        "ExecutedVersion": answer.get("ExecutedVersion"),
        "RequestId": answer.get("ResponseMetadata", {}).get("RequestId"),
        "Log": log or None,
        "Payload": None,
    }
    try:
        record["Payload"] = json.loads(result) if result else None
    except ValueError:
        record["PayloadBase64"] = base64.b64encode(result).decode()
    return record


def read_payload(text: str) -> bytes:
    """The event's bytes as they are: a custom runtime may want other than JSON of its own devising."""
    if text == "-":
        return sys.stdin.buffer.read()
    return Path(text[1:]).read_bytes() if text.startswith("@") else text.encode(errors="surrogateescape")


def _show(result: bytes, log: str, *, accepted: bool) -> None:
    if log:
        say(log.rstrip(), dim=True)
    if accepted:
        say("accepted")
    if result:
        # Bytes, not text: the result is the function's and need not be UTF-8.
        sys.stdout.buffer.write(result)
        if not result.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
