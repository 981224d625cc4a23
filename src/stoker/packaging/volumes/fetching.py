"""Chunks on their way: each is fetched once for all who wait, tried again a few times, then given up.

Knows no sockets and no clock: whoever owns it sends what ``due`` says and reports what came.
"""

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from stoker.packaging.volumes.volume import ChunkId, PendingRead

FETCHES_MAX = 32
"""Under way at once, those ahead of any read included."""

AHEAD_MAX = 12
"""Of those, fetched ahead of any read."""

ATTEMPTS_MAX = 3
ATTEMPT_WAIT_S = 4.0
READ_WAIT_S = 8.0
"""A read fails after this: what waits for it can neither be frozen nor killed before."""

BETWEEN_ATTEMPTS_S = 0.2
SLOW_FOR_S = 1.0
"""What was too slow fails at once for this long: the kernel repeats a failed read ahead by pieces."""


class Want(msgspec.Struct):
    """A chunk that somebody needs, or will."""

    chunk: ChunkId
    volume: int
    index: int
    give_up_s: float
    waiting: list[PendingRead] = []
    attempts: int = 0
    not_before_s: float = 0.0
    damaged: bool = False
    fetch: int = 0
    attempt_ends_s: float = 0.0
    ahead: bool = False
    """Under way before any read asked."""


class Wants:
    """Every chunk that is wanted and not here."""

    def __init__(self) -> None:
        self._wanted: dict[ChunkId, Want] = {}
        self._queue: OrderedDict[ChunkId, None] = OrderedDict()
        self._ahead: OrderedDict[ChunkId, None] = OrderedDict()
        self._under_way: dict[int, Want] = {}
        self._ahead_under_way = 0
        self._last_fetch = 0

    def __len__(self) -> int:
        return len(self._wanted)

    def wait_for(self, read: PendingRead, chunk: ChunkId, index: int, now_s: float) -> bool:
        """Have a read wait for a chunk; True when that chunk is wanted already."""
        want = self._wanted.get(chunk)
        joined = want is not None
        if want is None:
            want = self._wanted[chunk] = Want(chunk, read.volume, index, now_s + READ_WAIT_S)
            self._queue[chunk] = None
        elif chunk in self._ahead:  # somebody needs it now
            del self._ahead[chunk]
            self._queue[chunk] = None
        if not want.waiting:
            want.give_up_s = now_s + READ_WAIT_S
        want.waiting.append(read)
        return joined

    def fetch_ahead(self, volume: int, chunk: ChunkId, index: int) -> None:
        """Fetch a chunk when nothing more urgent is to be done."""
        if chunk not in self._wanted:
            self._wanted[chunk] = Want(chunk, volume, index, float("inf"))
            self._ahead[chunk] = None

    def due(self, now_s: float) -> Iterator[Want]:
        """What to ask for now; each has a number in ``fetch``."""
        for queue, ahead in ((self._queue, False), (self._ahead, True)):
            for chunk in list(queue):
                if len(self._under_way) >= FETCHES_MAX or (ahead and self._ahead_under_way >= AHEAD_MAX):
                    break
                want = self._wanted[chunk]
                if want.not_before_s <= now_s:
                    del queue[chunk]
                    yield self._started(want, now_s, ahead=ahead)

    def unsent(self, want: Want) -> None:
        """It could not be asked for: first in the queue again."""
        self._stop(want)
        want.attempts -= 1
        self._queue[want.chunk] = None
        self._queue.move_to_end(want.chunk, last=False)

    def named(self, fetch: int) -> Want | None:
        """What a number stands for; None when it was given up meanwhile."""
        return self._under_way.get(fetch)

    def came(self, want: Want) -> list[PendingRead]:
        """It is here; returns who waited."""
        self._stop(want)
        del self._wanted[want.chunk]
        return want.waiting

    def failed(self, want: Want, now_s: float, *, damaged: bool = False) -> list[PendingRead] | None:
        """An attempt failed; None when there will be another, else who waited in vain."""
        self._stop(want)
        if want.waiting and want.attempts < ATTEMPTS_MAX and now_s < want.give_up_s:
            want.damaged |= damaged
            want.not_before_s = now_s + BETWEEN_ATTEMPTS_S
            self._queue[want.chunk] = None
            return None
        self._forget(want)
        return want.waiting

    def overdue(self, now_s: float) -> tuple[list[Want], list[Want]]:
        """Attempts that took too long, and wants whose readers waited too long."""
        slow = [want for want in self._under_way.values() if now_s >= want.attempt_ends_s]
        late = [want for want in self._wanted.values() if want.waiting and now_s >= want.give_up_s]
        return slow, late

    def give_up(self, want: Want) -> list[PendingRead]:
        """Returns who waited in vain."""
        self._stop(want)
        self._forget(want)
        return want.waiting

    def drop(self, volume: int) -> None:
        """A volume is gone: nobody of it waits any more."""
        for want in list(self._wanted.values()):
            want.waiting = [read for read in want.waiting if read.volume != volume]
            if want.volume != volume:
                continue
            if want.waiting:  # asked for in the name of one that is still there
                want.volume, want.index = _place(want.waiting[0], want.chunk)
            elif not want.fetch:
                self._forget(want)

    def _started(self, want: Want, now_s: float, *, ahead: bool) -> Want:
        self._last_fetch += 1
        want.fetch, want.ahead = self._last_fetch, ahead
        want.attempts += 1
        want.attempt_ends_s = now_s + ATTEMPT_WAIT_S
        self._under_way[want.fetch] = want
        self._ahead_under_way += ahead
        return want

    def _stop(self, want: Want) -> None:
        if self._under_way.pop(want.fetch, None) is not None:
            self._ahead_under_way -= want.ahead
        want.fetch, want.ahead = 0, False

    def _forget(self, want: Want) -> None:
        self._wanted.pop(want.chunk, None)
        self._queue.pop(want.chunk, None)
        self._ahead.pop(want.chunk, None)


def _place(read: PendingRead, chunk: ChunkId) -> tuple[int, int]:
    """Where a read finds a chunk: its volume, and the index there."""
    return read.volume, next(piece.index for piece in read.pieces if piece.chunk == chunk)
