"""``stoker list``: the functions there are, with what they run on and whether they are ready."""

from typing import Annotated, Any

import typer

from stoker.cli.connection import DataOption, client
from stoker.cli.output import show_json, show_table, size


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list", help="List the functions.")(functions)


def functions(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """List the functions. AWS's ListFunctions leaves out their state, so each is asked for its own."""
    service = client("lambda", data)
    pages = service.get_paginator("list_functions").paginate()
    names = [function["FunctionName"] for page in pages for function in page["Functions"]]
    found = [function for name in names if (function := _configuration(service, name)) is not None]
    if as_json:
        show_json(found)
        return
    show_table(
        ("NAME", "RUNTIME", "MEMORY", "TIMEOUT", "SIZE", "MODIFIED (UTC)", "STATE"),
        [row(function) for function in found],
        empty="no function; 'stoker deploy FOLDER' makes one",
    )


def row(function: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table from a FunctionConfiguration."""
    state = function.get("State", "")
    if state != "Active" and function.get("StateReason"):
        state = f"{state}: {function['StateReason']}"
    elif function.get("LastUpdateStatus") in ("InProgress", "Failed"):
        state = f"{state}, update {function['LastUpdateStatus']}"
    return (
        function["FunctionName"],
        function.get("Runtime", "image"),
        f"{function['MemorySize']} MB",
        f"{function['Timeout']} s",
        size(function["CodeSize"]),
        function["LastModified"][:19].replace("T", " "),
        state,
    )


def _configuration(service: Any, name: str) -> dict[str, Any] | None:
    """None for a function that was deleted since it was listed."""
    try:
        found = service.get_function_configuration(FunctionName=name)
    except service.exceptions.ResourceNotFoundException:
        return None
    found.pop("ResponseMetadata", None)
    return found
