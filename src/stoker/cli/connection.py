"""How the commands reach Stoker: keys from the environment, or from the service over its admin socket."""

import os
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from stoker.app.admin_client import AdminClient
from stoker.app.configuration import default_data_directory
from stoker.core.access import Access

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 910
"""A little over the longest invocation, so that a slow function is not given up on."""


def data_directory(data: Path | None) -> Path:
    """The folder a command talks about: its --data, STOKER_DATA, or the default."""
    if data is not None:
        return data
    named = os.environ.get("STOKER_DATA")
    return Path(named) if named else default_data_directory()


def access(data: Path | None) -> Access:
    """Endpoint and keys: AWS_ENDPOINT_URL_LAMBDA with AWS keys when they are set (``stoker env``), else the
    admin socket's answer.

    Raises:
        ServiceNotRunning: there is neither.
    """
    endpoint = os.environ.get("AWS_ENDPOINT_URL_LAMBDA")
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if data is None and endpoint and key and secret:
        return Access(
            endpoint=endpoint,
            account="",
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            access_key_id=key,
            secret_access_key=secret,
        )
    return AdminClient(data_directory(data)).access()


def client(service: str, data: Path | None) -> Any:
    """A boto3 client of ``lambda`` or ``logs`` that talks to Stoker. Raises ServiceNotRunning."""
    reach = access(data)
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
