"""Brings event source mappings from Creating, Updating and the like to rest, and deletes those that go."""

import asyncio
from typing import Final

import msgspec
import structlog

from stoker.control.mapping_records import mapping_record
from stoker.control.ports import Ports
from stoker.core.errors import StokerError
from stoker.services.event_sources import (
    EVENT_SOURCE_MAPPING,
    SETTLED_STATES,
    EventSourceMapping,
)
from stoker.services.records import (
    Change,
    Entry,
    Put,
    RecordChanged,
    RecordMissing,
    Remove,
    Shelf,
)

TRANSITION_S: Final = 0.3
"""How long a mapping is shown on its way. AWS takes seconds to minutes; clients poll."""
ATTEMPTS: Final = 5

_log = structlog.get_logger("stoker.control")


class MappingTransitions:
    """Owns the tasks. One that a killed process left behind is taken up at the next start."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._shelf = Shelf(ports.records, EVENT_SOURCE_MAPPING, EventSourceMapping)
        self._tasks: set[asyncio.Task[None]] = set()

    async def resume(self) -> None:
        """Take up what is under way, if anything is."""
        for entry in await self._shelf.every():
            if entry.value.shown.state not in SETTLED_STATES:
                self.begin(entry)

    def begin(self, entry: Entry[EventSourceMapping]) -> None:
        """Bring a mapping that was just written to rest; whoever polls is told of both."""
        self._ports.mapping_changed(entry.key)
        task = asyncio.get_running_loop().create_task(self._settle(entry))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drained(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Leave what is under way to the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _settle(self, entry: Entry[EventSourceMapping]) -> None:
        for attempt in range(ATTEMPTS):
            await asyncio.sleep(TRANSITION_S * 2**attempt)
            try:
                await self._shelf.write(self._outcome(entry))
            except RecordMissing:
                return
            except RecordChanged:
                now = await self._shelf.get(entry.key)
                if now is None or now.value.shown != entry.value.shown:
                    return  # another write came first, and has a task of its own
                entry = now  # only its tags were changed
            except StokerError as problem:
                _log.warning("a mapping's state could not be written", reason=repr(problem))
            else:
                self._ports.mapping_changed(entry.key)
                return

    def _outcome(self, entry: Entry[EventSourceMapping]) -> Change:
        mapping = entry.value
        if mapping.shown.state == "Deleting":
            return Remove(entry.key, entry.revision_id)
        state = "Enabled" if mapping.enabled else "Disabled"
        shown = msgspec.structs.replace(mapping.shown, state=state, last_modified=self._ports.clock.now_s())
        settled = msgspec.structs.replace(mapping, shown=shown)
        return Put(mapping_record(self._shelf, entry.key, settled, self._ports.new_id()), entry.revision_id)
