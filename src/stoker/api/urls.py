"""The door of function URLs: any method and path, by Host or path, to an event and back to a response.

A stranger's large body is read only after the policy let strangers in; a signer's only for a good key.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from stoker.api.bodies import BodyReader
from stoker.api.errors import render_error
from stoker.api.model import Service
from stoker.api.request_ids import RequestIds
from stoker.api.sigv4 import OpenClaim, Verifier, hash_body
from stoker.api.url_addresses import UrlAddress, UrlAddresses
from stoker.api.url_cors import is_preflight, preflight_headers, with_cors
from stoker.api.url_events import Arrival, Signer, url_event
from stoker.api.url_responses import BAD_GATEWAY, JSON, InvalidAnswer, UrlResponse, url_response
from stoker.core.clock import Clock
from stoker.core.errors import ServiceError
from stoker.http.errors import InvalidHeader
from stoker.http.messages import Headers, Reply, Request
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.invocation import InvokeResponse
from stoker.services.sts_types import GetCallerIdentityRequest
from stoker.services.url_calls import UrlCall, UrlFrontend, UrlRoute
from stoker.services.urls import FORBIDDEN, IAM_AUTH

EVENT_MAX_BYTES: Final = 6_291_456
TRACE_MAX_BYTES: Final = 512

_BOUND: Final = (b"x-amzn-requestid", b"x-amzn-trace-id")


class UrlCalls(msgspec.Struct, frozen=True, kw_only=True):
    """What the door is built from beside what the API has anyway."""

    frontend: UrlFrontend
    domain: str
    region: str
    """Of URLs that are reached by path without naming theirs."""


class Visit(msgspec.Struct, eq=False):
    """One request on its way through."""

    request: Request
    reply: Reply
    request_id: str
    query: bytes
    address: UrlAddress


class UrlDoor:
    """Serves requests that ``find`` gave an address."""

    def __init__(
        self,
        calls: UrlCalls,
        *,
        verifier: Verifier,
        bodies: BodyReader,
        clock: Clock,
        service: Service,
        identities: Mapping[str, OperationHandler],
    ) -> None:
        self._frontend = calls.frontend
        self._addresses = UrlAddresses(calls.domain, calls.region)
        self._verifier = verifier
        self._bodies = bodies
        self._clock = clock
        self._service = service
        self._identify = identities.get("GetCallerIdentity")
        self._trace_bits = RequestIds()
        self.find = self._addresses.find

    async def serve(self, visit: Visit) -> None:
        """Answer one request.

        Raises:
            PeerVanished: the client is gone.
        """
        trace_id = self._trace_id(visit.request)
        try:
            response = await self._respond(visit, trace_id)
        except ServiceError as error:
            answer = render_error(error, self._service, visit.request_id)
            response = UrlResponse(answer.status, answer.headers, answer.body)
        _send(visit, response, trace_id)

    async def _respond(self, visit: Visit, trace_id: str) -> UrlResponse:
        address, request = visit.address, visit.request
        route = await self._frontend.route(address.url_id, address.region)
        if route is None:
            return UrlResponse(403, _error_headers("AccessDeniedException"), b'{"Message":null}')
        if route.cors is not None and is_preflight(request):
            return UrlResponse(200, preflight_headers(route.cors, request), b"")
        opened = self._opened(visit) if route.auth_type == IAM_AUTH else None
        body = await self._body(visit, opened)
        signer = None if opened is None else await self._signer(visit, opened, body[1])
        arrival = Arrival(
            address=address,
            account=route.account,
            request_id=visit.request_id,
            trace_id=trace_id,
            now_s=self._clock.now_s(),
            signer=signer,
        )
        event = url_event(request, visit.query, body[0], arrival)
        if len(event) > EVENT_MAX_BYTES:
            raise _too_large()
        call = UrlCall(
            visit.request_id,
            address.url_id,
            address.region,
            event,
            request.peer,
            trace_id,
            None if signer is None else signer.context,
        )
        return _shaped(await self._frontend.invoke(call), route, request)

    # --- who asks

    def _opened(self, visit: Visit) -> OpenClaim:
        try:
            opened = self._verifier.open(visit.request, b"lambda")
        except ServiceError as error:
            if error.code == "MissingAuthenticationTokenException":
                raise ServiceError("AccessDeniedException", FORBIDDEN) from error
            raise
        if opened.claim.region != visit.address.region.encode():
            raise ServiceError(
                "InvalidSignatureException",
                f"Credential should be scoped to a valid region, not '{opened.claim.region.decode()}'. ",
            )
        return opened

    async def _signer(self, visit: Visit, opened: OpenClaim, body_sha256: bytes) -> Signer:
        caller = self._verifier.settle(opened, visit.request, body_sha256)
        credential = caller.credential
        context = RequestContext(
            visit.request_id,
            credential.account,
            caller.region,
            credential.access_key_id,
            credential.principal_arn,
            visit.request.peer,
            f"{'https' if visit.request.secure else 'http'}://{visit.address.domain_name}",
            credential.session_policy,
            credential.bound_to,
        )
        return Signer(context, await self._user_id(context))

    async def _user_id(self, context: RequestContext) -> str:
        if self._identify is None or context.principal_arn.endswith(":root"):
            return context.account
        identity: Any = await self._identify(context, GetCallerIdentityRequest())
        return identity.user_id or context.account

    # --- what they send

    async def _body(self, visit: Visit, opened: OpenClaim | None) -> tuple[bytes | memoryview, bytes]:
        """The body, and its hash where it is to be signed."""
        request, address = visit.request, visit.address
        if request.stream is None:
            return request.body, b"" if opened is None else hash_body(request.body)
        if opened is None and not await self._frontend.open_to_all(
            address.url_id, address.region, request.peer
        ):
            raise ServiceError("AccessDeniedException", FORBIDDEN)
        body = await self._bodies.read(request.stream, EVENT_MAX_BYTES, _too_large())
        return body.view(), body.sha256

    def _trace_id(self, request: Request) -> str:
        given = request.header(b"x-amzn-trace-id")
        if given is not None and given.startswith(b"Root=") and len(given) <= TRACE_MAX_BYTES:
            return given.decode("latin-1")
        bits = self._trace_bits.next().replace("-", "")[:24]
        return f"Root=1-{int(self._clock.now_s()):08x}-{bits}"


def _shaped(answer: InvokeResponse, route: UrlRoute, request: Request) -> UrlResponse:
    try:
        response = BAD_GATEWAY if answer.function_error is not None else url_response(answer.payload)
    except InvalidAnswer:
        response = BAD_GATEWAY
    if route.cors is None:
        return response
    return msgspec.structs.replace(response, headers=with_cors(response.headers, route.cors, request))


def _too_large() -> ServiceError:
    return ServiceError(
        "RequestEntityTooLargeException",
        f"Request must be smaller than {EVENT_MAX_BYTES} bytes for the InvokeFunction operation",
        fields={"Type": "User"},
    )


def _error_headers(code: str) -> Headers:
    return [(b"content-type", JSON), (b"x-amzn-errortype", code.encode())]


def _send(visit: Visit, response: UrlResponse, trace_id: str) -> None:
    own: Headers = [
        (b"x-amzn-requestid", visit.request_id.encode()),
        (b"x-amzn-trace-id", trace_id.encode("latin-1")),
    ]
    headers = [each for each in response.headers if each[0] not in _BOUND]
    try:
        visit.reply.send(response.status, headers + own, response.body)
    except InvalidHeader:
        # A name that is no token: refused by the one place that knows the wire.
        visit.reply.send(BAD_GATEWAY.status, BAD_GATEWAY.headers + own, BAD_GATEWAY.body)
