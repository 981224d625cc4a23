"""Function URLs on the data plane: which function an id stands for, whether this caller may, run it.

Strangers ask for ids: what is remembered of them, and how many are looked up at one time, is bounded.
"""

from collections import OrderedDict
from typing import Final, TypeVar

import msgspec

from stoker.core.arn import FunctionReference
from stoker.core.errors import ServiceError
from stoker.frontend.invoke import InvokeFrontend
from stoker.services.authorisation import Authoriser
from stoker.services.context import RequestContext
from stoker.services.functions import LATEST, FunctionKey, Invalidation
from stoker.services.invocation import InvokeRequest, InvokeResponse
from stoker.services.records import Records
from stoker.services.url_calls import UrlCall, UrlRoute
from stoker.services.urls import FORBIDDEN, NO_AUTH, FunctionUrl, account_of, url_shelf

URLS_KEPT: Final = 10_000
UNKNOWN_KEPT: Final = 10_000
LOOKUPS_MAX: Final = 64
"""Reads of the store under way for ids that are not known."""


V = TypeVar("V")

_Id = tuple[str, str]


class _Place(msgspec.Struct, frozen=True):
    """A URL and what it leads to."""

    function: FunctionKey
    qualifier: str | None
    url: FunctionUrl


class UrlDirectory:
    """URLs by id, read once and then from memory until their function changes."""

    def __init__(self, records: Records, invalidation: Invalidation) -> None:
        self._shelf = url_shelf(records)
        self._known: OrderedDict[_Id, _Place] = OrderedDict()
        self._ids: dict[FunctionKey, set[_Id]] = {}
        self._unknown: OrderedDict[_Id, None] = OrderedDict()
        self._reading = 0
        self._changed: set[FunctionKey] = set()
        invalidation.subscribe(self._invalidated)

    async def find(self, url_id: str, region: str) -> _Place | None:
        """The place behind an id, or None."""
        key = (region, url_id)
        place = self._known.get(key)
        if place is not None:
            self._known.move_to_end(key)
            return place
        account = account_of(url_id)
        # An id is not known to anybody before its URL exists, and never comes back: unknown once is for ever.
        if account is None or key in self._unknown:
            return None
        return await self._read(key, account)

    async def _read(self, key: _Id, account: str) -> _Place | None:
        if self._reading >= LOOKUPS_MAX:
            raise ServiceError("ServiceUnavailableException", "Too many requests at one time.")
        region, url_id = key
        self._reading += 1
        try:
            found = await self._shelf.referring(account, region, url_id, limit=1)
            if not found:
                _keep(self._unknown, key, None, UNKNOWN_KEPT)
                return None
            owner, name = found[0].key.owner, found[0].key.name
            function = FunctionKey(account, region, owner)
            place = _Place(function, None if name == LATEST else name, found[0].value)
            if function not in self._changed:
                self._remember(key, place)
            return place
        finally:
            self._reading -= 1
            if not self._reading:
                self._changed.clear()

    def _remember(self, key: _Id, place: _Place) -> None:
        self._ids.setdefault(place.function, set()).add(key)
        dropped = _keep(self._known, key, place, URLS_KEPT)
        if dropped is not None:
            self._forget_id(*dropped)

    def _forget_id(self, key: _Id, place: _Place) -> None:
        ids = self._ids.get(place.function)
        if ids is not None:
            ids.discard(key)
            if not ids:
                del self._ids[place.function]

    def _invalidated(self, function: FunctionKey) -> None:
        if self._reading:
            self._changed.add(function)
        for key in self._ids.pop(function, ()):
            self._known.pop(key, None)


class FunctionUrlFrontend:
    """The UrlFrontend port over the directory, the authoriser and the door for invocations."""

    def __init__(self, directory: UrlDirectory, authoriser: Authoriser, frontend: InvokeFrontend) -> None:
        self._directory = directory
        self._authoriser = authoriser
        self._frontend = frontend

    async def route(self, url_id: str, region: str) -> UrlRoute | None:
        place = await self._directory.find(url_id, region)
        if place is None:
            return None
        return UrlRoute(place.function.account, place.url.auth_type, place.url.cors)

    async def open_to_all(self, url_id: str, region: str, source_ip: str) -> bool:
        place = await self._directory.find(url_id, region)
        return place is not None and await self._allowed(place, None, source_ip)

    async def invoke(self, call: UrlCall) -> InvokeResponse:
        place = await self._directory.find(call.url_id, call.region)
        if place is None or not await self._allowed(place, call.caller, call.source_ip):
            raise _forbidden()
        function = place.function
        context = RequestContext(
            request_id=call.request_id,
            account=function.account,
            region=function.region,
            access_key_id="",
            principal_arn="",
            source_ip=call.source_ip,
            endpoint="",
        )
        reference = FunctionReference(name=function.name, qualifier=place.qualifier)
        request = InvokeRequest(reference, call.payload, trace_id=call.trace_id)
        try:
            return await self._frontend.invoke_allowed(context, request, function)
        except ServiceError as error:
            if error.code == "ResourceNotFoundException":
                # The alias is gone, and its policy with it; AWS says no more than this.
                raise _forbidden() from error
            raise

    async def _allowed(self, place: _Place, caller: RequestContext | None, source_ip: str) -> bool:
        auth_type = place.url.auth_type
        if auth_type != NO_AUTH and caller is None:
            return False
        return await self._authoriser.allows_url(
            None if auth_type == NO_AUTH else caller,
            place.function,
            place.qualifier,
            auth_type=auth_type,
            source_ip=source_ip,
        )


def _forbidden() -> ServiceError:
    return ServiceError("AccessDeniedException", FORBIDDEN)


def _keep(kept: "OrderedDict[_Id, V]", key: _Id, value: V, limit: int) -> "tuple[_Id, V] | None":
    """Keep the entry; returns the oldest where that is one too many."""
    kept[key] = value
    return kept.popitem(last=False) if len(kept) > limit else None
