"""The data plane's door: whose function, may they, is there room, run it. Never sees HTTP, SQL, sandboxes."""

import asyncio
from collections.abc import Awaitable, Mapping
from random import Random

import msgspec

from stoker.core.arn import check_region
from stoker.core.clock import Clock
from stoker.core.errors import ServiceError, conflict, not_found, too_many_requests
from stoker.core.promise import Promise
from stoker.frontend.admission import Admission, AdmissionStatistics, Admitted
from stoker.frontend.client_context import decode_client_context
from stoker.frontend.metadata import FunctionDirectory, InvocableFunction
from stoker.frontend.running import Runner
from stoker.frontend.tracing import trace_header
from stoker.services.authorisation import INVOKE_FUNCTION, Authoriser
from stoker.services.context import RequestContext
from stoker.services.events import Attempt, AttemptOutcome
from stoker.services.functions import FunctionKey, FunctionMetadata, Invalidation
from stoker.services.invocation import Invocation, InvocationResult, InvokeRequest, InvokeResponse
from stoker.services.manager import WorkerManager
from stoker.services.queue import EventExists, EventSink, QueuedEvent, QueueFull
from stoker.services.records import Records
from stoker.services.worker import Worker

PENDING_WAIT_S = 5.0
"""How long an invocation waits for a function that is being created before it is refused."""

_ACCEPTED = InvokeResponse(202)
_DRY_RUN = InvokeResponse(204)


class FrontendStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What the front end did since it started."""

    admission: AdmissionStatistics
    invocations: int
    function_errors: int
    events_accepted: int
    in_background: int
    """Invocations under way that are cold, or whose caller went away."""


class InvokeFrontend:
    """The Frontend and EventInvoker ports over metadata, the worker manager and its workers."""

    def __init__(
        self,
        *,
        metadata: FunctionMetadata,
        records: Records,
        invalidation: Invalidation,
        manager: WorkerManager,
        workers: Mapping[str, Worker],
        events: EventSink,
        authoriser: Authoriser,
        clock: Clock,
        random: Random,
        admission: Admission | None = None,
    ) -> None:
        self._manager = manager
        self._events = events
        self._authoriser = authoriser
        self._clock = clock
        self._random = random
        self._admission = admission or Admission()
        self._runner = Runner(manager, workers, self._admission)
        self._directory = FunctionDirectory(
            metadata, records, invalidation, running=manager.versions, changed=self._changed
        )
        self._invocations = 0
        self._function_errors = 0
        self._events_accepted = 0

    def invoke(self, context: RequestContext, request: InvokeRequest) -> Awaitable[InvokeResponse]:
        """A function that is known and active is invoked at once, without a task."""
        reference = request.function
        check_region(reference, context.region)
        key = FunctionKey(reference.account or context.account, context.region, reference.name)
        allowed = self._authoriser.allows_nowait(context, INVOKE_FUNCTION, key, reference.qualifier)
        function = self._directory.qualified_nowait(key, reference.qualifier)
        if function is not None and function.other is not None:
            function = function.choose(self._random)
        total = self._directory.total_reserved_nowait((key.account, key.region))
        synchronous = request.invocation_type == "RequestResponse"
        if not allowed or not synchronous or function is None or not function.active or total is None:
            return self._invoke_waiting(context, request, key)
        return self._begin(context, request, key, function, total)

    async def _invoke_waiting(
        self, context: RequestContext, request: InvokeRequest, key: FunctionKey
    ) -> InvokeResponse:
        qualifier = request.function.qualifier
        if not self._authoriser.allows_nowait(context, INVOKE_FUNCTION, key, qualifier):
            await self._authoriser.authorise(context, INVOKE_FUNCTION, key, qualifier)
        return await self.invoke_allowed(context, request, key)

    async def invoke_allowed(
        self, context: RequestContext, request: InvokeRequest, key: FunctionKey
    ) -> InvokeResponse:
        """As ``invoke``, for a caller of whom it is known already that they may."""
        if request.client_context is not None:
            decode_client_context(request.client_context)
        function = await self._resolve(key, request.function.qualifier)
        if request.invocation_type == "RequestResponse":
            total = await self._directory.total_reserved((key.account, key.region))
            return await self._begin(context, request, key, function, total)
        if request.invocation_type == "DryRun":
            return _DRY_RUN
        await self._accept(context, request, key)
        return _ACCEPTED

    def _begin(
        self,
        context: RequestContext,
        request: InvokeRequest,
        key: FunctionKey,
        function: InvocableFunction,
        total_reserved: int,
    ) -> Promise[InvokeResponse]:
        encoded = request.client_context
        invocation = Invocation(
            context.request_id,
            request.payload,
            function.arn,
            trace_header(request.trace_id, self._clock.now_s(), self._random),
            None if encoded is None else decode_client_context(encoded),
            request.log_tail,
        )
        admitted = self._admit(key, function, total_reserved)
        version = function.version.version

        def shape(result: InvocationResult) -> InvokeResponse:
            if result.function_error is not None:
                self._function_errors += 1
            return InvokeResponse(200, result.payload, result.function_error, version, result.log_tail)

        return self._runner.run(function.version, invocation, admitted, shape)

    async def run_event(self, event: QueuedEvent) -> Attempt:
        """Run an accepted event once. The caller was authorised when the event was accepted.

        Cancelling the call leaves the invocation running, as for a synchronous caller.
        """
        try:
            function = await self._resolve(event.key, event.qualifier or None)
            if function.reserved_concurrency == 0:
                return Attempt(AttemptOutcome.NO_CONCURRENCY)
            trace_id = event.trace_id or trace_header(None, self._clock.now_s(), self._random)
            invocation = Invocation(event.request_id, event.payload, function.arn, trace_id)
            total = await self._directory.total_reserved((event.key.account, event.key.region))
            admitted = self._admit(event.key, function, total, event=True)
            result = await self._runner.run(function.version, invocation, admitted, lambda result: result)
        except ServiceError as error:
            return Attempt(_outcome(error), str(error))
        if result.function_error is not None:
            self._function_errors += 1
        outcome = AttemptOutcome.FUNCTION_ERROR if result.function_error else AttemptOutcome.SUCCEEDED
        return Attempt(outcome, "", result.payload, result.function_error, function.version.version)

    def put_events_on(self, events: EventSink) -> None:
        """Where accepted events go from now on."""
        self._events = events

    def statistics(self) -> FrontendStatistics:
        """Counts as of now."""
        return FrontendStatistics(
            admission=self._admission.statistics(),
            invocations=self._invocations,
            function_errors=self._function_errors,
            events_accepted=self._events_accepted,
            in_background=self._runner.in_background(),
        )

    async def close(self, grace_s: float) -> None:
        """Stop reading changes, then wait for invocations whose caller went away, ``grace_s`` at most."""
        await self._directory.close()
        await self._runner.close(grace_s)

    def _admit(
        self, key: FunctionKey, function: InvocableFunction, total_reserved: int, *, event: bool = False
    ) -> Admitted:
        admitted = self._admission.enter(
            key,
            reserved=function.reserved_concurrency,
            total_reserved=total_reserved,
            event=event,
            now_s=self._clock.monotonic_s(),
        )
        self._invocations += 1
        return admitted

    async def _resolve(self, key: FunctionKey, qualifier: str | None) -> InvocableFunction:
        """The function that a qualifier names, ready to run; waits a little for one that is being created."""
        deadline_s = self._clock.monotonic_s() + PENDING_WAIT_S
        while True:
            function = await self._directory.function(key, qualifier)
            if function is None:
                arn = key.arn if qualifier is None else f"{key.arn}:{qualifier}"
                raise not_found(f"Function not found: {arn}")
            function = function.choose(self._random)
            if function.active:
                return function
            state = function.version.state.value
            left_s = deadline_s - self._clock.monotonic_s()
            if state != "Pending" or left_s <= 0:
                raise conflict(
                    "The operation cannot be performed at this time. "
                    f"The function is currently in the following state: {state}"
                )
            await self._directory.wait_changed(key, left_s)

    async def _accept(self, context: RequestContext, request: InvokeRequest, key: FunctionKey) -> None:
        """Put an event on the durable queue, without its client context: AWS passes none to events."""
        now_s = self._clock.now_s()
        event = QueuedEvent(
            request_id=context.request_id,
            key=key,
            qualifier=request.function.qualifier or "",
            payload=request.payload,
            accepted_at_s=now_s,
            due_at_s=now_s,
            trace_id=trace_header(request.trace_id, now_s, self._random),
        )
        # Shielded: a caller who leaves must not take back a write that may be half done.
        put = asyncio.ensure_future(self._put(event))
        await asyncio.shield(put)

    async def _put(self, event: QueuedEvent) -> None:
        try:
            await self._events.put(event)
        except EventExists:
            return
        except QueueFull as error:
            raise too_many_requests("Rate Exceeded.", "CallerRateLimitExceeded") from error
        self._events_accepted += 1

    def _changed(self, key: FunctionKey, version: str, deployment_id: str | None) -> None:
        self._manager.forget(key, version, keep_deployment_id=deployment_id)


def _outcome(error: ServiceError) -> AttemptOutcome:
    if error.code == "TooManyRequestsException":
        return AttemptOutcome.THROTTLED
    if error.code == "ResourceNotFoundException":
        return AttemptOutcome.FUNCTION_GONE
    return AttemptOutcome.UNAVAILABLE
