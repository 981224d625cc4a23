"""The ``stoker`` command: gathers the sub-commands and turns errors into one line and an exit code."""

import io
import os
import sys
from typing import Annotated, cast

import typer

from stoker.cli import (
    delete,
    deploy,
    doctor,
    env,
    events,
    functions,
    guest,
    image,
    invoke,
    keys,
    logs,
    ps,
    up,
)
from stoker.cli.failures import Failure, explain
from stoker.cli.output import say, show_json_line

EX_BROKEN_PIPE = 1
EX_INTERRUPTED = 130

app = typer.Typer(
    name="stoker",
    help="AWS Lambda for your own machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Boxes break badly in narrow terminals, and drawing them takes longer than everything else together.
    rich_markup_mode=None,
)
for module in (up, env, doctor, deploy, invoke, logs, functions, delete, image, ps, events, keys, guest):
    module.register(app)


def run() -> None:
    """Entry point of the installed command."""
    output = cast("io.TextIOWrapper", sys.stdout)
    # A log may hold what this terminal's encoding lacks.
    output.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            # Here, where a reader that has gone can still be told from a failure.
            output.flush()
    except BrokenPipeError:
        _discard_output()
        sys.exit(EX_BROKEN_PIPE)
    except KeyboardInterrupt:
        sys.exit(EX_INTERRUPTED)
    except Exception as problem:
        failure = explain(problem)
        if failure is None:
            raise
        _show(failure)
        sys.exit(failure.exit_code)


@app.callback(invoke_without_command=True)
def options(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """AWS Lambda for your own machines."""
    if show_version:
        from importlib.metadata import version  # noqa: PLC0415  (slow, and rarely asked for)

        typer.echo(f"stoker {version('stoker')}")
        raise typer.Exit


def _show(failure: Failure) -> None:
    if "--json" in sys.argv:
        record = {"code": failure.code, "message": failure.message, "hint": failure.hint or None}
        show_json_line({"error": record}, sys.stderr)
        return
    say(f"stoker: {failure.message}", fg="red")
    if failure.hint:
        say(f"        {failure.hint}")


def _discard_output() -> None:
    """Point standard output at nothing, so that the interpreter's own flush at exit has no complaint."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    run()
