"""The Lambda Runtime API (2018-06-01) of one sandbox, served through a listening socket handed over.

Each request is answered synchronously from the state table; no task, no queue beyond one pending invocation.
It never knows functions, timeouts or processes: those are its ``RuntimeEvents``' business.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from stoker.core.errors import IllegalTransition
from stoker.runtimeapi import answers
from stoker.runtimeapi.connection import Connection, ParsedRequest
from stoker.runtimeapi.limits import MAX_CONNECTIONS, REFUSED_BURST, REFUSED_PER_S
from stoker.runtimeapi.records import RuntimeEvents, RuntimeInvocation
from stoker.runtimeapi.states import Move, RuntimeStates, State, refusal

_PREFIX = b"/2018-06-01/"
_INVOCATION = b"/2018-06-01/runtime/invocation/"
_NEXT = b"/2018-06-01/runtime/invocation/next"
_INIT_ERROR = b"/2018-06-01/runtime/init/error"
_ASSIGNMENT = b"/2018-06-01/stoker/assignment"


class RuntimeApi:
    """One server for one sandbox. Not thread-safe: everything happens on the loop it was started on.

    With ``on_pooled`` the runtime inside belongs to no function yet: it is told what it is for by ``assign``,
    and ``on_pooled`` is called, synchronously, when it waits for that. Nothing else is served until then.
    """

    def __init__(self, events: RuntimeEvents, on_pooled: Callable[[], None] | None = None) -> None:
        self._events = events
        self._on_pooled = on_pooled
        self._states = RuntimeStates(pooled=on_pooled is not None)
        self._connections: set[Connection] = set()
        self._waiting: deque[Connection] = deque(maxlen=MAX_CONNECTIONS)
        self._pending: RuntimeInvocation | None = None
        self._rendered = b""
        self._servers: list[asyncio.Server] = []
        self._allowance = float(REFUSED_BURST)
        self._allowance_at_s = 0.0

    @property
    def state(self) -> State:
        """Where the runtime is."""
        return self._states.state

    async def start(self, *listening: socket.socket) -> None:
        """Serve sockets that listen already, TCP or Unix; the server owns them from now on."""
        loop = asyncio.get_running_loop()
        for one in listening:
            one.setblocking(False)
            serve = loop.create_unix_server if one.family == socket.AF_UNIX else loop.create_server
            self._servers.append(await serve(lambda: Connection(self), sock=one))

    async def close(self) -> None:
        """Stop listening and drop every connection; the runtime's waiting ``/next`` ends with it."""
        if self._states.state is not State.DEAD:
            self._states.apply(Move.CLOSE)
        self._pending = None
        self._rendered = b""
        for connection in tuple(self._connections):
            connection.close()
        while self._servers:
            self._servers.pop().close()

    def assign(self, assignment: bytes) -> None:
        """Tell a pooled runtime what it is for: JSON text, the answer to its waiting request.

        Raises:
            IllegalTransition: it is not pooled any more, or does not wait.
        """
        if not self._waiting or not self._states.allows(Move.ASSIGN):
            raise IllegalTransition(refusal(self._states.state, Move.ASSIGN))
        self._states.apply(Move.ASSIGN)
        self._waiting.popleft().send(answers.answer(200, assignment))

    def deliver(self, invocation: RuntimeInvocation) -> None:
        """Hand an invocation to the runtime: at once if it waits, else with its next ``/next``.

        Raises:
            IllegalTransition: it has one already, or it is dead or failed to initialise.
        """
        state = self._states.state
        if self._pending is not None or state not in (State.STARTED, State.READY, State.RESPONSE_SENT):
            raise IllegalTransition(refusal(state, Move.DELIVER))
        self._pending = invocation
        if state is State.READY:
            self._hand_over()

    def _hand_over(self) -> None:
        while self._pending is not None and self._waiting:
            connection = self._waiting.popleft()
            if not connection.is_open:
                continue
            invocation, self._pending = self._pending, None
            self._states.deliver(invocation.request_id)
            self._rendered = answers.render_invocation(invocation)
            connection.send(self._rendered)

    # --- Requests: what a connection asks

    def opened(self, connection: Connection) -> bool:
        if self._states.state is State.DEAD or len(self._connections) >= MAX_CONNECTIONS:
            return False
        self._connections.add(connection)
        return True

    def closed(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        if connection in self._waiting:
            self._waiting.remove(connection)
        if not self._connections and self._states.state is not State.DEAD:
            self._events.on_connection_lost()

    def request(self, connection: Connection, request: ParsedRequest) -> bytes | None:
        path = request.path
        if request.method == b"POST":
            if path.startswith(_INVOCATION):
                return self._posted(connection, request, path[len(_INVOCATION) :])
            if path == _INIT_ERROR:
                return self._init_error(connection, request)
        elif request.method == b"GET":
            if path == _NEXT:
                return self._next(connection)
            if path == _PREFIX + b"ping":
                return self._charged(connection, answers.PONG)
            if path == _ASSIGNMENT and self._states.state is State.POOLED and not self._waiting:
                return self._wait_pooled(connection)
        return self._charged(connection, answers.refuse(404, "NotFound", "404 page not found"))

    def _wait_pooled(self, connection: Connection) -> None:
        self._waiting.append(connection)
        connection.awaiting = True
        if self._on_pooled is not None:
            self._on_pooled()

    def _next(self, connection: Connection) -> bytes | None:
        state = self._states.state
        if not self._states.allows(Move.NEXT):
            return self._illegal(connection, Move.NEXT)
        if state is State.RUNNING:
            return self._charged(connection, self._rendered)
        if state is State.READY and not self._spend(1.0):
            connection.close()
            return None
        self._states.apply(Move.NEXT)
        self._waiting.append(connection)
        connection.awaiting = True
        if state is not State.READY:
            self._rendered = b""
            self._events.on_ready()
        # The callback may have delivered or closed already; hand over only what still waits.
        if self._pending is not None and self._states.state is State.READY:
            self._hand_over()
        return None

    def _posted(self, connection: Connection, request: ParsedRequest, rest: bytes) -> bytes:
        request_id, _, verb = rest.partition(b"/")
        move = {b"response": Move.RESPONSE, b"error": Move.ERROR}.get(verb)
        if move is None:
            return self._charged(connection, answers.refuse(404, "NotFound", "404 page not found"))
        known = self._states.request_id
        if known is None or request_id != known.encode():
            return self._charged(connection, answers.INVALID_REQUEST_ID)
        if not self._states.allows(move):
            return self._illegal(connection, move)
        self._states.apply(move)
        if move is Move.RESPONSE:
            return self._response(known, request)
        return self._error(known, request)

    def _response(self, request_id: str, request: ParsedRequest) -> bytes:
        headers = request.headers
        mode = headers.get(b"lambda-runtime-function-response-mode", b"")
        if mode not in (b"", b"streaming"):
            self._events.on_error(request_id, "Runtime.InvalidResponseModeHeader", b"")
            return answers.INVALID_RESPONSE_MODE
        if request.too_large:
            self._events.on_error(
                request_id, "Function.ResponseSizeTooLarge", answers.OVERSIZED_RESPONSE_BODY
            )
            return answers.TOO_LARGE
        # A streamed response tells of a failure in the middle by trailers.
        failed = headers.get(b"lambda-runtime-function-error-type") if mode else None
        if failed is not None:
            body = answers.trailer_error_body(headers.get(b"lambda-runtime-function-error-body", b""))
            self._events.on_error(request_id, answers.valid_error_type(_text(failed)), body)
            return answers.ACCEPTED
        content_type = _text(headers.get(b"content-type", b"application/json"))
        self._events.on_response(request_id, request.body, content_type)
        return answers.ACCEPTED

    def _error(self, request_id: str, request: ParsedRequest) -> bytes:
        error_type = answers.valid_error_type(
            _text(request.headers.get(b"lambda-runtime-function-error-type", b""))
        )
        if request.too_large:
            self._events.on_error(
                request_id, "Function.ResponseSizeTooLarge", answers.OVERSIZED_RESPONSE_BODY
            )
            return answers.TOO_LARGE
        body = request.body
        if request.headers.get(b"content-type") == answers.ERROR_WITH_CAUSE.encode():
            body = answers.error_without_cause(body)
        self._events.on_error(request_id, error_type, body)
        return answers.ACCEPTED

    def _init_error(self, connection: Connection, request: ParsedRequest) -> bytes:
        if not self._states.allows(Move.INIT_ERROR):
            return self._illegal(connection, Move.INIT_ERROR)
        self._states.apply(Move.INIT_ERROR)
        error_type = answers.valid_error_type(
            _text(request.headers.get(b"lambda-runtime-function-error-type", b""))
        )
        body = answers.OVERSIZED_RESPONSE_BODY if request.too_large else request.body
        self._events.on_init_error(error_type, body)
        return answers.TOO_LARGE if request.too_large else answers.ACCEPTED

    # --- what a hostile runtime may cost

    def _illegal(self, connection: Connection, move: Move) -> bytes:
        message = refusal(self._states.state, move)
        return self._charged(connection, answers.refuse(403, "InvalidStateTransition", message))

    def _charged(self, connection: Connection, answer: bytes) -> bytes:
        if not self._spend(1.0):
            connection.close()
        return answer

    def _spend(self, cost: float) -> bool:
        now_s = asyncio.get_running_loop().time()
        self._allowance += (now_s - self._allowance_at_s) * REFUSED_PER_S
        self._allowance = min(float(REFUSED_BURST), self._allowance)
        self._allowance_at_s = now_s
        if self._allowance < cost:
            return False
        self._allowance -= cost
        return True


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
