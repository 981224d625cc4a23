"""The ``stoker`` command: gathers the sub-commands and turns errors into one line and an exit code."""

import sys

import typer
from botocore.exceptions import BotoCoreError, ClientError

from stoker.app.configuration import ConfigurationError
from stoker.cli import deploy, doctor, env, invoke, logs, ps, up
from stoker.cli.output import errors
from stoker.core.errors import StokerError

EX_FAILED = 1
EX_CONFIG = 78

app = typer.Typer(
    name="stoker",
    help="AWS Lambda for your own machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for module in (up, env, doctor, deploy, invoke, logs, ps):
    module.register(app)


def run() -> None:
    """Entry point of the installed command."""
    try:
        app()
    except ConfigurationError as problem:
        _fail(str(problem), EX_CONFIG)
    except (StokerError, ClientError, BotoCoreError, OSError) as problem:
        _fail(str(problem), EX_FAILED)


def _fail(message: str, code: int) -> None:
    errors.print(f"stoker: {message}", style="red", markup=False, highlight=False)
    sys.exit(code)


if __name__ == "__main__":
    run()
