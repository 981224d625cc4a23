"""Keys of users, made and taken away while several front ends serve."""

from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from tests.conformance.identities import allow, user
from tests.running import RunningStoker

CONNECTIONS = 12
"""Enough that both front ends get some, whichever way the kernel spreads them."""


@pytest.fixture(scope="module")
def stoker() -> Iterator[RunningStoker]:
    running = RunningStoker(frontends=2)
    try:
        running.start()
        yield running
    finally:
        running.remove()


def test_every_front_end_knows_a_key_at_once_and_no_longer(stoker: RunningStoker) -> None:
    keys = user(stoker, "u", allow("lambda:ListFunctions"))
    for _ in range(CONNECTIONS):
        client = stoker.client_of("lambda", keys)
        assert client.list_functions()["Functions"] == []
        with pytest.raises(ClientError, match="lambda:GetAccountSettings"):
            client.get_account_settings()
    stoker.client("iam").delete_access_key(UserName="u", AccessKeyId=keys[0])
    for _ in range(CONNECTIONS):
        with pytest.raises(ClientError, match="UnrecognizedClientException"):
            stoker.client_of("lambda", keys).list_functions()
