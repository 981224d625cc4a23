"""botocore's clients, made once a service and region; endpoints and credentials are botocore's settings."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import NoCredentialsError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
"""Longer than SQS's longest poll of 20 s."""
READ_TIMEOUT_KMS_S = 5
"""A start waits for the answer."""
CONNECTIONS_MAX = 64
CLIENTS_MAX = 64
"""Each takes a megabyte or more, and callers choose regions; the one unused longest makes room."""


class AwsClients:
    """Thread-safe, as are the clients; for calls that block."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._session: Any = None
        self._clients: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._lock = threading.Lock()

    def client(self, service: str, region: str) -> Any:
        """The client of a service. Making one reads botocore's models: tens of milliseconds."""
        with self._lock:  # sessions, unlike clients, are not thread-safe
            made = self._clients.get((service, region))
            if made is None:
                made = self._made(service, region)
                self._clients[service, region] = made
                if len(self._clients) > CLIENTS_MAX:
                    self._clients.popitem(last=False)
            self._clients.move_to_end((service, region))
            return made

    def credentials(self) -> Any:
        """What botocore's settings say, frozen; renewed where they expire, for which others may be asked.

        Raises:
            NoCredentialsError: they say nothing.
        """
        with self._lock:
            found = self._opened().get_credentials()
        if found is None:
            raise NoCredentialsError
        return found.get_frozen_credentials()

    def _opened(self) -> Any:
        if self._session is None:
            self._session = botocore.session.Session()
        return self._session

    def _made(self, service: str, region: str) -> Any:
        read_timeout_s = READ_TIMEOUT_KMS_S if service == "kms" else READ_TIMEOUT_S
        return self._opened().create_client(service, region_name=region, config=self._config(read_timeout_s))

    def _config(self, read_timeout_s: int) -> Config:
        named = {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} & set(self._environment)
        return Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=read_timeout_s,
            max_pool_connections=CONNECTIONS_MAX,
            retries={
                "mode": "standard",
                "total_max_attempts": 1,
            },  # whoever calls tries again, with a longer wait
            # Compatible servers rarely have a name a bucket.
            s3={"addressing_style": "path" if named else "auto"},
        )
