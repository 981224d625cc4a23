"""What one Stoker serves, and the two ways to serve it: in this process, or through front-end processes."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from stoker.api.dispatch import Api
from stoker.api.urls import UrlCalls
from stoker.app.configuration import listen_address
from stoker.app.frontends import FrontEnds
from stoker.app.frontends_listening import SharedAddress
from stoker.app.frontends_protocol import CODE, PAGE, Orders
from stoker.app.unsigned import TEXT, Downloads, FindCode, Page, Pages, unsigned_routes
from stoker.core.clock import Clock
from stoker.core.configuration import Settings
from stoker.services.context import OperationHandler
from stoker.services.invocation import Frontend
from stoker.services.url_calls import UrlFrontend
from stoker.store.key_ring import KeyRing
from stoker.transport.remote import frontend_operations, handler_operations, url_operations
from stoker.transport.rpc import Handle, Operation


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """Everything behind the API's door. It is served by one authority, whoever accepts the connection."""

    credentials: KeyRing
    frontend: Frontend
    urls: UrlFrontend
    handlers: Mapping[str, Mapping[str, OperationHandler]]
    """By service and operation."""
    pages: Pages
    find_code: FindCode
    spool_directory: str


def make_api(offer: Offer, settings: Settings, clock: Clock, stack: AsyncExitStack) -> Api:
    """The API in this process, called directly; ``stack`` closes it."""
    downloads = Downloads(offer.find_code)
    stack.push_async_callback(downloads.close)
    api = Api(
        credentials=offer.credentials,
        clock=clock,
        frontend=offer.frontend,
        urls=UrlCalls(frontend=offer.urls, domain=settings.url_domain, region=settings.region),
        handlers=offer.handlers,
        unsigned=unsigned_routes(offer.pages, downloads),
        endpoint=settings.public_url,
        spool_directory=offer.spool_directory,
    )
    stack.push_async_callback(api.close)
    return api


def make_front_ends(offer: Offer, settings: Settings) -> FrontEnds:
    """The API in processes of its own, which ask this one."""
    address = SharedAddress(*listen_address(settings))
    return FrontEnds(settings.frontends, address, lambda: _orders(offer, settings), served_operations(offer))


def served_operations(offer: Offer) -> dict[Operation, Handle]:
    """What a front end may ask."""

    async def page(path: str) -> Page:
        found = offer.pages.get(path)
        return Page(404, TEXT, b"no such page\n") if found is None else found()

    async def code(path: str, query: dict[str, str]) -> str | None:
        archive: Path | None = await offer.find_code(path, query)
        return None if archive is None else str(archive)

    return {
        **frontend_operations(offer.frontend),
        **url_operations(offer.urls),
        **handler_operations(offer.handlers),
        PAGE: page,
        CODE: code,
    }


def _orders(offer: Offer, settings: Settings) -> Orders:
    return Orders(
        keys=offer.credentials.keys,
        session_keys=offer.credentials.session_keys,
        operations={service: tuple(served) for service, served in offer.handlers.items()},
        public_url=settings.public_url,
        url_domain=settings.url_domain,
        region=settings.region,
        spool_directory=offer.spool_directory,
        tls_certificate=settings.tls_certificate,
        tls_key=settings.tls_key,
        log_level=settings.log_level,
    )
