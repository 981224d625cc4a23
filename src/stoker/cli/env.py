"""``stoker env``: the exports that make every AWS SDK and CLI talk to Stoker."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from stoker.cli.connection import access
from stoker.cli.output import show_json

SERVED = ("LAMBDA", "CLOUDWATCH_LOGS")
"""Services that Stoker answers for, as botocore spells them in AWS_ENDPOINT_URL_<SERVICE>."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("env", help="Print shell exports for AWS SDKs and the AWS CLI.")(env)


def env(
    data: Annotated[Path | None, typer.Option(help="The running service's data folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of exports.")] = False,
) -> None:
    """Use it as: eval "$(stoker env)"."""
    variables = exports(data)
    if as_json:
        show_json(variables)
        return
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def exports(data: Path | None) -> dict[str, str]:
    """Service-specific endpoints (never the global one, which would catch other services), keys, region."""
    reach = access(data)
    variables = {f"AWS_ENDPOINT_URL_{service}": reach.endpoint for service in SERVED}
    variables["AWS_ACCESS_KEY_ID"] = reach.access_key_id
    variables["AWS_SECRET_ACCESS_KEY"] = reach.secret_access_key
    variables["AWS_REGION"] = variables["AWS_DEFAULT_REGION"] = reach.region
    return variables
