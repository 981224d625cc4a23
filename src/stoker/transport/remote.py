"""The rooms' ports over calls between processes: what a front-end process asks of the one that decides."""

from collections.abc import Mapping
from typing import Any, Final

from stoker.services import iam_types, lambda_types, logs_types, sts_types
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.invocation import Frontend, InvokeRequest, InvokeResponse
from stoker.services.url_calls import UrlCall, UrlFrontend, UrlRoute
from stoker.transport.local import INVOKE_DEADLINE_S
from stoker.transport.rpc import Handle, Operation, RpcPeer

OPERATION_DEADLINE_S: Final = 900.0
"""Of everything but invocations; the slowest fetch an archive from S3."""

INVOKE: Final = Operation(
    "frontend.invoke",
    tuple[RequestContext, InvokeRequest],
    InvokeResponse,
    deadline_s=INVOKE_DEADLINE_S,
    cancellable=True,
)

URL_ROUTE: Final = Operation("urls.route", tuple[str, str], UrlRoute | None, deadline_s=30.0)
URL_OPEN: Final = Operation("urls.open_to_all", tuple[str, str, str], bool, deadline_s=30.0)
URL_INVOKE: Final = Operation(
    "urls.invoke", tuple[UrlCall], InvokeResponse, deadline_s=INVOKE_DEADLINE_S, cancellable=True
)

_TYPES: Final = {
    "lambda": (lambda_types.INPUT, lambda_types.OUTPUT),
    "logs": (logs_types.INPUT, logs_types.OUTPUT),
    "iam": (iam_types.INPUT, iam_types.OUTPUT),
    "sts": (sts_types.INPUT, sts_types.OUTPUT),
}

OperationNames = Mapping[str, tuple[str, ...]]
"""What is served, by service."""


class RemoteFrontend:
    """A Frontend in another process."""

    def __init__(self, peer: RpcPeer) -> None:
        self._peer = peer

    async def invoke(self, context: RequestContext, request: InvokeRequest) -> InvokeResponse:
        return await self._peer.call(INVOKE, context, request)


class RemoteUrlFrontend:
    """A UrlFrontend in another process."""

    def __init__(self, peer: RpcPeer) -> None:
        self._peer = peer

    async def route(self, url_id: str, region: str) -> UrlRoute | None:
        return await self._peer.call(URL_ROUTE, url_id, region)

    async def open_to_all(self, url_id: str, region: str, source_ip: str) -> bool:
        return await self._peer.call(URL_OPEN, url_id, region, source_ip)

    async def invoke(self, call: UrlCall) -> InvokeResponse:
        return await self._peer.call(URL_INVOKE, call)


def url_operations(urls: UrlFrontend) -> dict[Operation, Handle]:
    """What serves RemoteUrlFrontend."""
    return {URL_ROUTE: urls.route, URL_OPEN: urls.open_to_all, URL_INVOKE: urls.invoke}


def frontend_operations(frontend: Frontend) -> dict[Operation, Handle]:
    """What serves RemoteFrontend."""
    return {INVOKE: frontend.invoke}


def modelled_operation(service: str, name: str) -> Operation:
    """One operation of the API: its typed request in, its typed response out.

    Raises KeyError for what is not in the model. It is never stopped half-way, whoever goes away.
    """
    requests, responses = _TYPES[service]
    arguments: Any = tuple[RequestContext, requests[name]]
    return Operation(f"{service}.{name}", arguments, responses[name], deadline_s=OPERATION_DEADLINE_S)


def remote_handlers(peer: RpcPeer, names: OperationNames) -> dict[str, dict[str, OperationHandler]]:
    """Handlers by service and operation, each of which asks the other process."""
    return {
        service: {name: _remote(peer, modelled_operation(service, name)) for name in served}
        for service, served in names.items()
    }


def handler_operations(
    handlers: Mapping[str, Mapping[str, OperationHandler]],
) -> dict[Operation, Handle]:
    """What serves ``remote_handlers``."""
    return {
        modelled_operation(service, name): handler
        for service, served in handlers.items()
        for name, handler in served.items()
    }


def _remote(peer: RpcPeer, operation: Operation) -> OperationHandler:
    async def ask(context: RequestContext, request: Any) -> Any:
        return await peer.call(operation, context, request)

    return ask
