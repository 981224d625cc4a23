"""The API on a real port in a thread of its own, for clients that block."""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config

from stoker.api.dispatch import Api
from stoker.api.errors import http_error_body
from stoker.api.urls import UrlCalls
from stoker.core.clock import SystemClock
from stoker.http.messages import Handler
from stoker.http.server import HttpServer, ServerLimits
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.invocation import InvokeRequest, InvokeResponse
from tests.unit.api.signing import KEY, KnownKeys


class EchoFrontend:
    """Answers every invocation with its own payload and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[RequestContext, InvokeRequest]] = []
        self.cancelled = threading.Event()
        self.entered = threading.Event()

    async def invoke(self, context: RequestContext, request: InvokeRequest) -> InvokeResponse:
        self.asked.append((context, request))
        if request.function.name == "slow":
            self.entered.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if request.function.name == "broken":
            raise RuntimeError("a secret of the inside")
        if request.invocation_type == "Event":
            return InvokeResponse(202)
        if request.invocation_type == "DryRun":
            return InvokeResponse(204)
        return InvokeResponse(
            200,
            request.payload,
            function_error="Unhandled" if request.function.name == "failing" else None,
            executed_version="$LATEST",
            log_tail=b"START\nEND\n" if request.log_tail else None,
        )


class RunningApi:
    """What tests need to know of it."""

    def __init__(self, port: int, frontend: EchoFrontend, api: Api, loop: asyncio.AbstractEventLoop) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.frontend = frontend
        self.api = api
        self.loop = loop

    def client(self, service: str = "lambda", **settings: Any) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=settings.pop("access_key_id", KEY.access_key_id),
            aws_secret_access_key=settings.pop("secret", KEY.secret),
            config=Config(retries={"total_max_attempts": 1}, **settings),
        )


@contextmanager
def running_api(
    handlers: Mapping[str, Mapping[str, OperationHandler]] | None = None,
    unsigned: Mapping[bytes, Handler] | None = None,
    urls: UrlCalls | None = None,
) -> Iterator[RunningApi]:
    """Serve on a free port of the loopback until the block ends."""
    frontend = EchoFrontend()
    loop = asyncio.new_event_loop()
    api = Api(
        credentials=KnownKeys(KEY),
        clock=SystemClock(),
        frontend=frontend,
        handlers=handlers or {},
        unsigned=unsigned or {},
        urls=urls,
    )
    server = HttpServer(api, ServerLimits(), error_body=http_error_body)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start_tcp("127.0.0.1", 0), loop).result(5)
    port = int(server.addresses[0].rpartition(":")[2])
    try:
        yield RunningApi(port, frontend, api, loop)
    finally:
        asyncio.run_coroutine_threadsafe(api.close(), loop).result(5)
        asyncio.run_coroutine_threadsafe(server.close(0.2), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
