"""Writes how polling goes, LastProcessingResult, behind the pollers and only where it changed."""

import asyncio

import msgspec
import structlog

from stoker.events.stream_parts import RESULT_NOTHING, tells_of_source
from stoker.services.event_sources import (
    EVENT_SOURCE_MAPPING,
    EVENT_SOURCE_MAPPING_RESULT,
    MappingResult,
    result_key,
)
from stoker.services.records import ANY_REVISION, Put, RecordKey, RecordMissing, Records, Remove, Shelf

GATHER_S = 0.2
"""Results that change more often than this are not all seen."""
AGAIN_S = 5.0

_log = structlog.get_logger("stoker.events")


class MappingResults:
    """One result a mapping; the last that was told is the one that is kept in the end."""

    def __init__(self, records: Records) -> None:
        self._shelf = Shelf(records, EVENT_SOURCE_MAPPING_RESULT, MappingResult)
        self._told: dict[RecordKey, str] = {}
        self._stored: dict[RecordKey, str] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, mappings: frozenset[RecordKey]) -> None:
        """Read what is stored and take away what belongs to no mapping."""
        for entry in await self._shelf.every():
            mapping = msgspec.structs.replace(entry.key, kind=EVENT_SOURCE_MAPPING)
            if mapping in mappings:
                self._stored[mapping] = entry.value.last_processing_result
            else:
                await self._shelf.write(Remove(entry.key))
        self._task = asyncio.get_running_loop().create_task(self._write_changes())

    def tell(self, mapping: RecordKey, result: str) -> None:
        """How it went last."""
        if self._told.get(mapping, self._stored.get(mapping)) != result:
            self._told[mapping] = result
            self._changed.set()

    def tell_read(self, mapping: RecordKey) -> None:
        """The source can be read: what was told of it before holds no more."""
        if tells_of_source(self._told.get(mapping, self._stored.get(mapping, ""))):
            self.tell(mapping, RESULT_NOTHING)

    async def forget(self, mapping: RecordKey) -> None:
        """The mapping is gone."""
        self._told.pop(mapping, None)
        if self._stored.pop(mapping, None) is not None:
            try:
                await self._shelf.write(Remove(result_key(mapping)))
            except RecordMissing:
                return

    async def close(self) -> None:
        """Write what was told and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self._write()

    async def _write_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._write()
                await asyncio.sleep(GATHER_S)
            except Exception as problem:
                _log.error("results of event source mappings could not be written", reason=repr(problem))
                self._changed.set()
                await asyncio.sleep(AGAIN_S)

    async def _write(self) -> None:
        changed = {key: text for key, text in self._told.items() if self._stored.get(key) != text}
        if not changed:
            self._told.clear()
            return
        puts = [
            Put(self._shelf.record(result_key(key), MappingResult(text), "1"), ANY_REVISION)
            for key, text in changed.items()
        ]
        await self._shelf.write(*puts)
        self._stored |= changed
        for key, text in changed.items():
            if self._told.get(key) == text:
                del self._told[key]
