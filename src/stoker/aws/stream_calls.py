"""Calls of the APIs of streams: JSON, signed by botocore, over Stoker's own HTTP client.

Thousands of quiet shards are read all the time; botocore's own path takes several times the CPU.
"""

import os
import ssl
from typing import Any, Final

import msgspec
from botocore import auth, awsrequest, httpsession, utils
from botocore.exceptions import BotoCoreError, ClientError

from stoker.aws.clients import READ_TIMEOUT_S, AwsClients
from stoker.core.clock import Clock
from stoker.core.threads import CallThreads
from stoker.http.client import HttpClient
from stoker.http.errors import HttpError
from stoker.services.sources import SourceFailed
from stoker.services.streams import (
    IteratorExpired,
    PositionGone,
    SourceDenied,
    SourceGone,
    SourceThrottled,
)

CALL_THREADS = 4
ACCESS_S = 60.0
"""How long credentials are used before botocore is asked whether they are still the ones."""
RESPONSE_MAX_BYTES = 32 * 1024 * 1024
"""GetRecords answers 10 MB at most, a third more in base64."""

# botocore has no types.
_request: Any = awsrequest.AWSRequest
_signer: Any = auth.SigV4Auth
_session: Any = httpsession.URLLib3Session
_utils: Any = utils

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


class Api(msgspec.Struct, frozen=True):
    """How an API of AWS is spoken: botocore's name of it, and the headers of its protocol."""

    service: str
    target: bytes
    content_type: bytes


KINESIS: Final = Api("kinesis", b"Kinesis_20131202.", b"application/x-amz-json-1.1")
DYNAMODB_STREAMS: Final = Api("dynamodbstreams", b"DynamoDBStreams_20120810.", b"application/x-amz-json-1.0")


class _Access(msgspec.Struct, frozen=True):
    """Where a region's service is, and as whom it is called."""

    url: str
    signing_name: str
    credentials: Any
    proxies: dict[str, str]
    until_s: float


class StreamCalls:
    """One API in all regions. Use it within one event loop."""

    def __init__(self, clients: AwsClients, api: Api, clock: Clock) -> None:
        self._clients = clients
        self._api = api
        self._clock = clock
        self._threads = CallThreads(f"stoker-{api.service}", threads_max=CALL_THREADS)
        self._accesses: dict[str, _Access] = {}
        self._http: HttpClient | None = None

    async def call(self, arn: str, operation: str, **members: Any) -> Any:
        """The answer of an operation in the region of an ARN. Raises SourceFailed and its kinds."""
        region = arn.split(":")[3]
        try:
            access = await self._access(region)
            body = msgspec.json.encode(members)
            status, content = await self._sent(access, self._signed(access, region, operation, body), body)
        except (BotoCoreError, ClientError, HttpError, OSError) as problem:
            raise SourceFailed(str(problem) or repr(problem)) from problem
        if status != 200:
            raise failure_of(operation, status, content)
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError as problem:
            raise SourceFailed(f"{operation} was answered with what is no JSON") from problem

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()

    async def _access(self, region: str) -> _Access:
        known = self._accesses.get(region)
        now_s = self._clock.monotonic_s()
        if known is None or known.until_s <= now_s:
            # botocore reads files and may ask servers for credentials.
            known = await self._threads.call(lambda: self._asked_access(region, now_s + ACCESS_S))
            self._accesses[region] = known
        return known

    def _asked_access(self, region: str, until_s: float) -> _Access:
        client = self._clients.client(self._api.service, region)
        url = str(client.meta.endpoint_url).rstrip("/") + "/"
        signing_name = str(client.meta.service_model.signing_name)
        return _Access(
            url, signing_name, self._clients.credentials(), _utils.get_environ_proxies(url), until_s
        )

    def _signed(self, access: _Access, region: str, operation: str, body: bytes) -> Any:
        headers = {
            "X-Amz-Target": (self._api.target + operation.encode()).decode(),
            "Content-Type": self._api.content_type.decode(),
        }
        request = _request("POST", access.url, data=body, headers=headers)
        _signer(access.credentials, access.signing_name, region).add_auth(request)
        return request

    async def _sent(self, access: _Access, request: Any, body: bytes) -> tuple[int, bytes]:
        if access.proxies:
            session = _session(proxies=access.proxies, timeout=READ_TIMEOUT_S)
            answer: Any = await self._threads.call(lambda: session.send(request.prepare()))
            return answer.status_code, answer.content
        if self._http is None:
            self._http = HttpClient(ssl_context=_tls())
        headers = [(str(name).encode(), str(value).encode()) for name, value in request.headers.items()]
        response = await self._http.request(
            "POST",
            access.url,
            headers=headers,
            body=body,
            timeout_s=READ_TIMEOUT_S,
            max_response_bytes=RESPONSE_MAX_BYTES,
            idempotent=True,
        )
        return response.status, response.body


def failure_of(operation: str, status: int, content: bytes) -> SourceFailed:
    """What an answer that is none says."""
    try:
        answer = msgspec.json.decode(content, type=_Failure)
    except (msgspec.DecodeError, RecursionError):
        answer = _Failure()
    code = answer.kind.rpartition("#")[2].partition(":")[0]
    said = f"{operation} was answered {status} {code}: {answer.message or answer.capital_message}"
    return _KINDS.get(code, SourceFailed)(said)


class _Failure(msgspec.Struct):
    kind: str = msgspec.field(name="__type", default="")
    message: str = ""
    capital_message: str = msgspec.field(name="Message", default="")


def _tls() -> ssl.SSLContext:
    return ssl.create_default_context(
        cafile=os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
    )
