"""``stoker delete``: a function goes, with all its versions; its log stays until it is rotated away."""

from typing import Annotated

import typer

from stoker.cli.connection import DataOption, client
from stoker.cli.output import show_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("delete", help="Delete a function.")(delete)


def delete(
    name: Annotated[str, typer.Argument(help="Function name or ARN.")],
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say it as JSON.")] = False,
) -> None:
    """Delete a function; it is an error when there is none."""
    client("lambda", data).delete_function(FunctionName=name)
    if as_json:
        show_json({"deleted": name})
    else:
        typer.echo(f"deleted {name}")
