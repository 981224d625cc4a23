"""botocore's clients, made once a service and region; endpoints and credentials are botocore's settings."""

import threading
from collections.abc import Mapping
from typing import Any

import botocore.session
from botocore.config import Config

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
"""Longer than SQS's longest poll of 20 s."""
CONNECTIONS_MAX = 64


class AwsClients:
    """Thread-safe, as are the clients; for calls that block."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._session: Any = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def client(self, service: str, region: str) -> Any:
        """The client of a service. Making one reads botocore's models: tens of milliseconds."""
        made = self._clients.get((service, region))
        if made is not None:
            return made
        with self._lock:  # sessions, unlike clients, are not thread-safe
            if self._session is None:
                self._session = botocore.session.Session()
            if (service, region) not in self._clients:
                self._clients[service, region] = self._session.create_client(
                    service, region_name=region, config=self._config()
                )
            return self._clients[service, region]

    def _config(self) -> Config:
        named = {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} & set(self._environment)
        return Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            max_pool_connections=CONNECTIONS_MAX,
            retries={
                "mode": "standard",
                "total_max_attempts": 1,
            },  # whoever calls tries again, with a longer wait
            # Compatible servers rarely have a name a bucket.
            s3={"addressing_style": "path" if named else "auto"},
        )
