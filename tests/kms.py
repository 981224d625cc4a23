"""A moto server whose KMS minds the state and the policy of a key, as the real one does and moto alone does not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import boto3
from moto.core.exceptions import JsonRESTError
from moto.kms.models import KmsBackend
from moto.server import ThreadedMotoServer

REGION = "us-east-1"
KEYS = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
DENY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "kms:*", "Resource": "*"}]}'


class Kms:
    """The server, for a test."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.client: Any = boto3.client("kms", endpoint_url=endpoint, region_name=REGION, **KEYS)
        self.calls = {"GenerateDataKey": 0, "Decrypt": 0}
        self.failures = 0
        """How many of the next calls the server fails by itself."""

    def key(self) -> str:
        """The ARN of a new key."""
        return self.client.create_key()["KeyMetadata"]["Arn"]

    def deny(self, arn: str) -> None:
        """Its policy denies everything from now on."""
        self.client.put_key_policy(KeyId=arn, PolicyName="default", Policy=DENY)

    def disable(self, arn: str) -> None:
        self.client.disable_key(KeyId=_key_id(arn))

    def enable(self, arn: str) -> None:
        self.client.enable_key(KeyId=_key_id(arn))

    def delete(self, arn: str) -> None:
        """In seven days; it is of no use from now on."""
        self.client.schedule_key_deletion(KeyId=_key_id(arn), PendingWindowInDays=7)

    def environment(self) -> dict[str, str]:
        """What a Stoker needs to reach it."""
        return {
            "AWS_ENDPOINT_URL_KMS": self.endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }

    def check(self, action: str, key: Any) -> None:
        self.calls[action] += 1
        if self.failures:
            self.failures -= 1
            raise _refusal("KMSInternalException", "try again", 500)
        if '"Deny"' in key.policy:
            raise _refusal(
                "AccessDeniedException",
                f"User: key is not authorized to perform: kms:{action} on resource: {key.arn}"
                " with an explicit deny in a resource-based policy",
            )
        if key.key_state == "Disabled":
            raise _refusal("DisabledException", f"{key.arn} is disabled.")
        if key.key_state != "Enabled":
            raise _refusal("KMSInvalidStateException", f"{key.arn} is pending deletion.", 409)


@contextmanager
def running_kms() -> Iterator[Kms]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    kms = Kms(f"http://{host}:{port}")
    generate, decrypt = KmsBackend.generate_data_key, KmsBackend.decrypt

    def strict_generate(backend: KmsBackend, key_id: str, *rest: Any, **named: Any) -> Any:
        kms.check("GenerateDataKey", backend.keys[backend.any_id_to_key_id(key_id)])
        return generate(backend, key_id, *rest, **named)

    def strict_decrypt(backend: KmsBackend, *rest: Any, **named: Any) -> Any:
        kms.check("Decrypt", backend.keys[backend.any_id_to_key_id(named["key_id"])])
        return decrypt(backend, *rest, **named)

    with (
        patch.object(KmsBackend, "generate_data_key", strict_generate),
        patch.object(KmsBackend, "decrypt", strict_decrypt),
    ):
        try:
            yield kms
        finally:
            server.stop()


def _key_id(arn: str) -> str:
    """moto changes keys by their id only."""
    return arn.rpartition("/")[2]


def _refusal(code: str, message: str, status: int = 400) -> JsonRESTError:
    error = JsonRESTError(code, message)
    error.code = status
    return error
