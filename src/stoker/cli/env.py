"""``stoker env``: the exports that make every AWS SDK and CLI talk to Stoker."""

import shlex
import sys
from typing import Annotated

import typer

from stoker.cli.connection import DataOption, admin
from stoker.cli.output import show_json
from stoker.core.access import Access

SERVED = ("LAMBDA", "CLOUDWATCH_LOGS", "IAM", "STS")
"""Services that Stoker answers for, as botocore spells them in AWS_ENDPOINT_URL_<SERVICE>."""

IN_THE_WAY = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
"""Left over from another account, these would win over the keys or spoil them."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("env", help="Print shell exports for AWS SDKs and CLI.")(env)


def env(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of exports.")] = False,
) -> None:
    """Always asks the service, so that exports of an earlier one are replaced."""
    variables = exports(admin(data).access())
    if as_json:
        show_json(variables)
        return
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    sys.stdout.write("\n".join([*lines, f"unset {' '.join(IN_THE_WAY)}"]) + "\n")


def exports(reach: Access) -> dict[str, str]:
    """Service-specific endpoints (never the global one, which would catch other services), keys, region."""
    variables = {f"AWS_ENDPOINT_URL_{service}": reach.endpoint for service in SERVED}
    variables["AWS_ACCESS_KEY_ID"] = reach.access_key_id
    variables["AWS_SECRET_ACCESS_KEY"] = reach.secret_access_key
    variables["AWS_ACCOUNT_ID"] = reach.account
    variables["AWS_REGION"] = variables["AWS_DEFAULT_REGION"] = reach.region
    return variables
