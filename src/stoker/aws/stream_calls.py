"""Calls that streams answer at once, on few threads, with their errors as ``services.streams`` names them."""

from collections.abc import Callable
from queue import Full
from typing import Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from stoker.aws.clients import AwsClients
from stoker.core.threads import CallThreads
from stoker.services.sources import SourceFailed
from stoker.services.streams import (
    IteratorExpired,
    PositionGone,
    SourceDenied,
    SourceGone,
    SourceThrottled,
)

T = TypeVar("T")

CALL_THREADS = 16

_KINDS: Final[dict[str, type[SourceFailed]]] = {
    "ProvisionedThroughputExceededException": SourceThrottled,
    "LimitExceededException": SourceThrottled,
    "ThrottlingException": SourceThrottled,
    "KMSThrottlingException": SourceThrottled,
    "ExpiredIteratorException": IteratorExpired,
    "TrimmedDataAccessException": PositionGone,
    "InvalidArgumentException": PositionGone,
    "ResourceNotFoundException": SourceGone,
    "AccessDeniedException": SourceDenied,
    "KMSAccessDeniedException": SourceDenied,
    "UnrecognizedClientException": SourceDenied,
    "InvalidSignatureException": SourceDenied,
    "InvalidClientTokenId": SourceDenied,
    "ExpiredTokenException": SourceDenied,
}


class StreamCalls:
    """The clients of one service."""

    def __init__(self, clients: AwsClients, service: str) -> None:
        self._clients = clients
        self._service = service
        self._threads = CallThreads(f"stoker-{service}", threads_max=CALL_THREADS)

    async def call(self, arn: str, ask: Callable[[Any], T]) -> T:
        """What ``ask`` makes of the client for the region of an ARN. Raises SourceFailed and its kinds."""
        try:
            return await self._threads.call(lambda: ask(self._clients.client(self._service, _region(arn))))
        except ClientError as problem:
            answer: Any = problem.response
            raise _KINDS.get(answer["Error"].get("Code", ""), SourceFailed)(str(problem)) from problem
        except (BotoCoreError, Full) as problem:
            raise SourceFailed(str(problem) or "too many calls wait") from problem


def _region(arn: str) -> str:
    return arn.split(":")[3]
