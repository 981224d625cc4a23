"""How the commands reach Stoker: keys from the environment, or from the service over its admin socket."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stoker.app.configuration import default_data_directory
from stoker.core.access import Access
from stoker.core.errors import StokerError

if TYPE_CHECKING:
    from stoker.app.admin_client import AdminClient

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 910
"""A little over the longest invocation, so that a slow function is not given up on."""

DataOption = Annotated[
    Path | None,
    typer.Option("--data", help="The running service's data folder.", show_default=False, readable=False),
]


class AccountUnknown(StokerError):
    """Nothing says which account the keys in the environment belong to."""


def data_directory(data: Path | None) -> Path:
    """The folder a command talks about: its --data, STOKER_DATA, or the default."""
    if data is not None:
        return data
    named = os.environ.get("STOKER_DATA")
    return Path(named) if named else default_data_directory()


def admin(data: Path | None) -> "AdminClient":
    """The admin socket of the service with this data folder."""
    # Imported late: http.client is a third of what ``stoker --help`` would otherwise load.
    from stoker.app.admin_client import AdminClient  # noqa: PLC0415

    return AdminClient(data_directory(data))


def access(data: Path | None) -> Access:
    """Endpoint and keys: AWS_ENDPOINT_URL_LAMBDA with AWS keys when they are set (``stoker env``), else the
    admin socket's answer.

    Raises:
        ServiceNotRunning: there is neither.
    """
    return _access_from_environment() if uses_environment(data) else admin(data).access()


def uses_environment(data: Path | None) -> bool:
    """Whether the environment names a Stoker, and no --data asks for another."""
    names = ("AWS_ENDPOINT_URL_LAMBDA", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return data is None and all(os.environ.get(name) for name in names)


def account(data: Path | None) -> str:
    """The 12-digit account that a new function belongs to.

    Raises:
        ServiceNotRunning: nothing answers.
        AccountUnknown: the environment has keys and no AWS_ACCOUNT_ID.
    """
    found = access(data).account
    if not found:
        raise AccountUnknown("AWS_ACCOUNT_ID is not set (stoker env prints it): set it, or give --role")
    return found


def client(service: str, data: Path | None) -> Any:
    """A boto3 client of ``lambda`` or ``logs`` that talks to Stoker. Raises ServiceNotRunning."""
    reach = access(data)
    import boto3  # noqa: PLC0415  (0.25 s: after it is known that somebody answers)
    from botocore.config import Config  # noqa: PLC0415

    # boto3 makes its clients at run time: there is no type to name here.
    make: Any = boto3.client  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return make(
        service,
        endpoint_url=reach.endpoint,
        region_name=reach.region,
        aws_access_key_id=reach.access_key_id,
        aws_secret_access_key=reach.secret_access_key,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"max_attempts": 0},
            proxies={},
        ),
    )


def _access_from_environment() -> Access:
    return Access(
        endpoint=os.environ["AWS_ENDPOINT_URL_LAMBDA"],
        account=os.environ.get("AWS_ACCOUNT_ID", ""),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    )
