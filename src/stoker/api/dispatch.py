"""The door: one HTTP handler that verifies, routes and answers every request. It alone here starts tasks.

Before a signature is verified nothing is started for a request but the reading of a large body. What serves
operations is given to it; it knows no room.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Final

import msgspec
import structlog

from stoker.api.authorization import split_target
from stoker.api.bodies import BodyReader
from stoker.api.errors import internal_failure, render_error, unknown_operation
from stoker.api.invoke import InvokeReader, invoke_answer, invoke_async_target, invoke_target, payload_limit
from stoker.api.jsonrpc import find_handler, find_json_operation, parse_json_request
from stoker.api.large_zips import FIELDS, LARGE_FROM_BYTES, read_in_slices
from stoker.api.model import IAM, LAMBDA, LOGS, REQUEST_MAX_BYTES, STS, Operation, Service, compile_service
from stoker.api.parse import parse_request
from stoker.api.query import (
    find_query_operation,
    named_service,
    parse_query_request,
    read_form,
    serialise_query_response,
)
from stoker.api.request_ids import RequestIds
from stoker.api.router import Router
from stoker.api.serialise import Answer, serialise_json_response, serialise_response
from stoker.api.sigv4 import Caller, OpenClaim, Verifier, hash_body
from stoker.api.url_addresses import UrlAddress
from stoker.api.urls import UrlCalls, UrlDoor, Visit
from stoker.core.clock import Clock
from stoker.core.errors import ServiceError
from stoker.core.promise import Promise, promise_of
from stoker.http.errors import PeerVanished
from stoker.http.messages import Handler, Reply, Request
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.credentials import Credentials
from stoker.services.invocation import Frontend, InvokeResponse

ENDPOINT_CACHE_SIZE: Final = 256

_log: Any = structlog.get_logger("stoker.api")


class Call(msgspec.Struct, eq=False):
    """One request that claims to be signed, on its way through."""

    request: Request
    reply: Reply
    request_id: str
    service: Service
    path: bytes
    query: bytes


class Api:
    """A handler for ``stoker.http``.

    ``handlers`` holds per service (``lambda``, ``logs``) what serves each operation; ``unsigned`` what
    answers GET and HEAD without a signature, by path (one that ends in a slash stands for all below it).
    ``endpoint`` is how callers reach Stoker; empty: as the request's Host says.
    """

    def __init__(
        self,
        *,
        credentials: Credentials,
        clock: Clock,
        frontend: Frontend,
        handlers: Mapping[str, Mapping[str, OperationHandler]],
        unsigned: Mapping[bytes, Handler],
        urls: UrlCalls | None = None,
        endpoint: str = "",
        spool_directory: str | None = None,
    ) -> None:
        self._lambda = compile_service(LAMBDA)
        self._logs = compile_service(LOGS)
        self._query = {name: compile_service(name) for name in (IAM, STS)}
        operations = self._lambda.operations
        self._router = Router(operations.values())
        self._invokes = InvokeReader(operations["Invoke"], operations["InvokeAsync"])
        self._verifier = Verifier(credentials, clock)
        self._frontend = frontend
        self._handlers = {name: dict(handlers.get(name, {})) for name in (LAMBDA, LOGS, IAM, STS)}
        self._refuse_unknown_names()
        self._unsigned = dict(unsigned)
        self._unsigned_below = {path: h for path, h in unsigned.items() if path.endswith(b"/")}
        self._endpoint = endpoint
        self._bodies = BodyReader(spool_directory)
        self._ids = RequestIds()
        self._urls = None if urls is None else self._url_door(urls, clock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._invocations: set[Promise[InvokeResponse]] = set()

    def __call__(self, request: Request, reply: Reply) -> None:
        """Serve one request; never raises."""
        path, query = split_target(request)
        if self._urls is not None:
            address = self._urls.find(request, path)
            if address is not None:
                call = Call(request, reply, self._ids.next(), self._lambda, path, query)
                self._start(call, self._visit, address)
                return
        if request.method in (b"GET", b"HEAD"):
            handler = self._find_unsigned(path)
            if handler is not None:
                handler(request, reply)
                return
        service = self._lambda if path != b"/" else self._service_of_root(request, query)
        call = Call(request, reply, self._ids.next(), service, path, query)
        try:
            self._accept(call)
        except ServiceError as error:
            self._refuse(call, error)
        except Exception as error:
            self._fail(call, error)

    async def close(self) -> None:
        """Cancel what is still running and wait until it has ended."""
        invocations = tuple(self._invocations)
        for each in (*self._tasks, *invocations):
            each.cancel()
        await asyncio.gather(*self._tasks, *invocations, return_exceptions=True)

    # --- the way in ---------------------------------------------------------------------------------------

    def _refuse_unknown_names(self) -> None:
        for service in (self._lambda, self._logs, *self._query.values()):
            unknown = self._handlers[service.name].keys() - service.operations.keys()
            if unknown:
                raise ValueError(f"{service.name} has no operations {', '.join(sorted(unknown))}")

    def _service_of_root(self, request: Request, query: bytes) -> Service:
        """Whose request one to / is: what has no path of its own names its service otherwise."""
        if request.header(b"x-amz-target") is not None:
            return self._logs
        name = named_service(request.header(b"authorization"), query)
        return self._lambda if name is None else self._query[name]

    def _find_unsigned(self, path: bytes) -> Handler | None:
        handler = self._unsigned.get(path)
        if handler is not None:
            return handler
        return next((h for prefix, h in self._unsigned_below.items() if path.startswith(prefix)), None)

    def _accept(self, call: Call) -> None:
        request = call.request
        opened = self._verifier.open(request, call.service.name.encode())
        if request.stream is not None:
            self._start(call, self._accept_large, opened)
            return
        caller = self._verifier.settle(opened, request, hash_body(request.body))
        self._serve(call, caller, request.body)

    async def _accept_large(self, call: Call, opened: OpenClaim) -> None:
        assert call.request.stream is not None
        limit_bytes, too_large = self._body_limit(call, opened)
        body = await self._bodies.read(call.request.stream, limit_bytes, too_large)
        caller = self._verifier.settle(opened, call.request, body.sha256)
        content = body.view()
        if len(content) < LARGE_FROM_BYTES or not await self._serve_archive(call, caller, content):
            self._serve(call, caller, content)

    def _body_limit(self, call: Call, opened: OpenClaim) -> tuple[int, ServiceError]:
        """How much of a large body is read, and the error for more. Refuses what routes nowhere."""
        name, limit_bytes = "", REQUEST_MAX_BYTES
        if call.service is self._lambda:
            match = self._router.match(call.request.method, call.path, call.query)
            if match is None:
                raise unknown_operation(LAMBDA)
            name, limit_bytes = match.operation.name, match.operation.body_max_bytes
            if name in ("Invoke", "InvokeAsync"):
                return payload_limit(opened.claim.fields, always_event=name == "InvokeAsync")
        what = f" for the {name} operation" if name else ""
        return limit_bytes, ServiceError(
            "RequestEntityTooLargeException", f"Request must be smaller than {limit_bytes} bytes{what}"
        )

    # --- function URLs ------------------------------------------------------------------------------------

    def _url_door(self, calls: UrlCalls, clock: Clock) -> UrlDoor:
        return UrlDoor(
            calls,
            verifier=self._verifier,
            bodies=self._bodies,
            clock=clock,
            service=self._lambda,
            identities=self._handlers[STS],
        )

    async def _visit(self, call: Call, address: UrlAddress) -> None:
        assert self._urls is not None
        task = asyncio.current_task()
        if task is not None:
            call.reply.on_disconnect(task.cancel)
        await self._urls.serve(Visit(call.request, call.reply, call.request_id, call.query, address))

    # --- verified -----------------------------------------------------------------------------------------

    def _serve(self, call: Call, caller: Caller, body: bytes | memoryview) -> None:
        context = self._context(call, caller)
        if call.service is self._logs:
            self._serve_json(call, context, caller, body)
        elif call.service.speaks_xml:
            self._serve_query(call, context, body)
        elif call.request.method != b"POST" or not self._serve_invoke(call, context, caller, body):
            self._serve_rest(call, context, body)

    def _serve_invoke(
        self, call: Call, context: RequestContext, caller: Caller, body: bytes | memoryview
    ) -> bool:
        """Start an invocation if this is one."""
        segment = invoke_target(call.path)
        if segment is not None:
            request = self._invokes.read(segment, call.query, caller.fields, bytes(body))
        else:
            segment = invoke_async_target(call.path)
            if segment is None:
                return False
            request = self._invokes.read_async(segment, caller.fields, bytes(body))
        answer = promise_of(self._frontend.invoke(context, request))
        self._invocations.add(answer)
        # Only invocations: an operation that changes something is not stopped half-way.
        call.reply.on_disconnect(answer.cancel)
        answer.when_done(partial(self._invoked, call))
        return True

    def _invoked(self, call: Call, answer: Promise[InvokeResponse]) -> None:
        self._invocations.discard(answer)
        error = answer.error
        if error is None:
            call.reply.send(*invoke_answer(answer.result(), call.request_id))
        elif isinstance(error, ServiceError):
            self._refuse(call, error)
        elif not answer.cancelled:
            self._fail(call, error)

    def _serve_rest(self, call: Call, context: RequestContext, body: bytes | memoryview) -> None:
        match = self._router.match(call.request.method, call.path, call.query)
        if match is None:
            raise unknown_operation(LAMBDA)
        operation = match.operation
        handler = find_handler(operation, self._handlers[LAMBDA])
        record = parse_request(operation, match.parameters, call.query, call.request.headers, body)
        self._start(call, self._run, context, operation, handler, record)

    async def _serve_archive(self, call: Call, caller: Caller, body: bytes | memoryview) -> bool:
        """Serve a request that is large for the archive in it; False when it is another."""
        match = None
        if call.service is self._lambda:
            match = self._router.match(call.request.method, call.path, call.query)
        if match is None or match.operation.name not in FIELDS:
            return False
        operation, headers = match.operation, call.request.headers
        handler = find_handler(operation, self._handlers[LAMBDA])
        parse = partial(parse_request, operation, match.parameters, call.query, headers)
        record = await read_in_slices(body, FIELDS[operation.name], parse)
        if record is None:
            return False
        await self._run(call, self._context(call, caller), operation, handler, record)
        return True

    def _serve_json(
        self, call: Call, context: RequestContext, caller: Caller, body: bytes | memoryview
    ) -> None:
        operation = find_json_operation(self._logs, caller.fields[b"x-amz-target"])
        handler = find_handler(operation, self._handlers[LOGS])
        record = parse_json_request(operation, body)
        self._start(call, self._run, context, operation, handler, record)

    def _serve_query(self, call: Call, context: RequestContext, body: bytes | memoryview) -> None:
        form = read_form(bytes(body) or call.query)
        operation = find_query_operation(call.service, form)
        handler = find_handler(operation, self._handlers[call.service.name])
        record = parse_query_request(operation, form)
        self._start(call, self._run, context, operation, handler, record)

    def _context(self, call: Call, caller: Caller) -> RequestContext:
        credential = caller.credential
        request = call.request
        return RequestContext(
            call.request_id,
            credential.account,
            caller.region,
            credential.access_key_id,
            credential.principal_arn,
            request.peer,
            self._endpoint or _endpoint_of(caller.fields[b"host"], request.secure),
            credential.session_policy,
            credential.bound_to,
        )

    # --- in tasks -----------------------------------------------------------------------------------------

    def _start(self, call: Call, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(call, work, arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(
        self, call: Call, work: Callable[..., Awaitable[None]], arguments: tuple[Any, ...]
    ) -> None:
        try:
            await work(call, *arguments)
        except ServiceError as error:
            self._refuse(call, error)
        except PeerVanished:
            return
        except Exception as error:
            self._fail(call, error)

    async def _run(
        self,
        call: Call,
        context: RequestContext,
        operation: Operation,
        handler: OperationHandler,
        record: msgspec.Struct,
    ) -> None:
        response = await handler(context, record)
        answer: Answer
        if operation.service == LOGS:
            answer = serialise_json_response(response, call.request_id)
        elif call.service.speaks_xml:
            answer = serialise_query_response(call.service, operation, response, call.request_id)
        else:
            answer = serialise_response(operation, response, call.request_id)
        call.reply.send(answer.status, answer.headers, answer.body)

    # --- the way out in case of errors --------------------------------------------------------------------

    def _refuse(self, call: Call, error: ServiceError) -> None:
        if call.reply.started:
            call.reply.abort()
            return
        answer = render_error(error, call.service, call.request_id)
        call.reply.send(answer.status, answer.headers, answer.body)

    def _fail(self, call: Call, error: BaseException) -> None:
        # As text: renderers that show local variables would show secrets.
        _log.error(
            "request_failed",
            request_id=call.request_id,
            path=call.path.decode("latin-1"),
            traceback="".join(traceback.format_exception(error)),
        )
        self._refuse(call, internal_failure(call.service.name, error))


@lru_cache(maxsize=ENDPOINT_CACHE_SIZE)
def _endpoint_of(host: bytes, secure: bool) -> str:
    return f"{'https' if secure else 'http'}://{host.decode('latin-1')}"
