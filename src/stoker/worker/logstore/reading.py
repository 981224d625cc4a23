"""Reads events of streams in the order of time. Blocking: runs in a thread, never on the event loop."""

import heapq
from collections.abc import Iterable, Iterator
from operator import itemgetter

import msgspec

from stoker.services.logs import LogEvent, LogPage
from stoker.worker.logstore import tokens
from stoker.worker.logstore.index import Index, Segment, Stream
from stoker.worker.logstore.records import Record, read_header, read_records
from stoker.worker.logstore.tokens import Position

PAGE_BYTES = 1024 * 1024
"""A page ends at its limit of events or at this many bytes, whichever comes first; as CloudWatch's."""

EVENT_OVERHEAD_BYTES = 26
"""What CloudWatch counts for an event beside its message."""

Place = tuple[int, int, int, int]
"""Time, stream id, segment number, offset: the order of all events of a group."""

Found = tuple[Place, str, Record]


class Query(msgspec.Struct, frozen=True):
    """Which events, from where, and how many."""

    start_ms: int
    end_ms: int
    limit: int
    forward: bool
    beyond: Position | None
    """Exclusive: only later events when forward, only earlier ones otherwise."""

    def bounds_ms(self) -> tuple[int, int]:
        """First time that may match, and the first after it that may not."""
        start_ms, end_ms = self.start_ms, self.end_ms
        if self.beyond is not None and self.forward:
            start_ms = max(start_ms, self.beyond.timestamp_ms)
        elif self.beyond is not None:
            end_ms = min(end_ms, self.beyond.timestamp_ms + 1)
        return start_ms, end_ms


class Part(msgspec.Struct, frozen=True):
    """A segment to read, with its stream."""

    stream: str
    stream_id: int
    segment: Segment
    size_bytes: int
    """How much of the file was written when the question was asked."""


def parts_of(streams: Iterable[Stream], query: Query) -> list[Part]:
    """The segments in which events of the query may be; cheap, under the index's lock."""
    start_ms, end_ms = query.bounds_ms()
    return [
        Part(stream.name, tokens.stream_id(stream.name), segment, segment.size_bytes)
        for stream in streams
        for segment in stream.segments
        if segment.touches(start_ms, end_ms)
    ]


def learn(index: Index, part: Part) -> None:
    """Read a segment of an earlier life once, so that the next questions know what is in it."""
    if part.segment.known:
        return
    facts = Segment(part.segment.number, part.segment.path, part.size_bytes, known=True)
    for record in _records(part, 0):
        facts.add(record.timestamp_ms, record.ingestion_ms, record.offset)
    with index.lock:
        segment = part.segment
        segment.first_ms, segment.last_ms = facts.first_ms, facts.last_ms
        segment.last_ingestion_ms = facts.last_ingestion_ms
        segment.ordered, segment.marks = facts.ordered, facts.marks
        segment.known = True


def read_page(index: Index, parts: list[Part], query: Query) -> LogPage:
    """The next (or previous) events, oldest first, with tokens for both directions."""
    for part in parts:
        learn(index, part)
    first, end = query.bounds_ms()
    parts = [part for part in parts if part.segment.touches(first, end)]
    parts.sort(key=lambda part: part.segment.first_ms or 0, reverse=not query.forward)
    pick = heapq.nsmallest if query.forward else heapq.nlargest
    best: list[Found] = []
    for part in parts:
        if len(best) >= query.limit and _is_farther(part.segment, best[-1][0][0], query.forward):
            continue
        best = pick(query.limit, [*best, *_matches(part, query)], key=itemgetter(0))
    return _page(best, query)


def _is_farther(segment: Segment, worst_ms: int, forward: bool) -> bool:
    """Whether nothing in a segment can be nearer than the worst event of a full page."""
    if forward:
        return segment.first_ms is not None and segment.first_ms > worst_ms
    return segment.last_ms is not None and segment.last_ms < worst_ms


def _matches(part: Part, query: Query) -> Iterator[Found]:
    start_ms, end_ms = query.bounds_ms()
    beyond: Place | None = None
    if query.beyond is not None:
        beyond = (
            query.beyond.timestamp_ms,
            query.beyond.stream_id,
            query.beyond.segment,
            query.beyond.offset,
        )
    for record in _records(part, part.segment.offset_before(start_ms) or 0):
        if record.timestamp_ms >= end_ms and part.segment.ordered:
            return
        if not start_ms <= record.timestamp_ms < end_ms:
            continue
        place = (record.timestamp_ms, part.stream_id, part.segment.number, record.offset)
        if beyond is None or (place > beyond if query.forward else place < beyond):
            yield place, part.stream, record


def _records(part: Part, offset: int) -> Iterator[Record]:
    """Records of a segment from a known record's offset (0: the beginning); none once it was deleted."""
    try:
        with part.segment.path.open("rb") as file:
            file.seek(offset)
            data = file.read(part.size_bytes - offset)
    except FileNotFoundError:
        return
    start = 0
    if offset == 0:
        header = read_header(data)
        if header is None:
            return
        start = header[1]
    for record in read_records(data, start):
        yield msgspec.structs.replace(record, offset=record.offset + offset) if offset else record


def _page(best: list[Found], query: Query) -> LogPage:
    """What fits a page, in time's order. The ends of an empty page are where it was asked from."""
    size_bytes = 0
    kept: list[Found] = []
    for found in best:
        size_bytes += len(found[2].message) + EVENT_OVERHEAD_BYTES
        if kept and size_bytes > PAGE_BYTES:
            break
        kept.append(found)
    if not query.forward:
        kept.reverse()
    here = query.beyond or Position(query.start_ms if query.forward else query.end_ms)
    newest = Position(*kept[-1][0]) if kept else here
    oldest = Position(*kept[0][0]) if kept else here
    return LogPage(
        tuple(_event(found) for found in kept), tokens.encode("f", newest), tokens.encode("b", oldest)
    )


def _event(found: Found) -> LogEvent:
    place, stream, record = found
    message = record.message.decode("utf-8", "replace")
    return LogEvent(record.timestamp_ms, message, stream, record.ingestion_ms, Position(*place).event_id)
