"""Chunks on their way: fetched once for all, tried again a few times, urgent ones first, and never forgotten."""

from stoker.packaging.volumes.fetching import (
    AHEAD_MAX,
    ATTEMPT_WAIT_S,
    ATTEMPTS_MAX,
    BETWEEN_ATTEMPTS_S,
    FETCHES_MAX,
    READ_WAIT_S,
    Wants,
)
from stoker.packaging.volumes.volume import ChunkId, PendingRead, Piece


def chunk(number: int) -> ChunkId:
    return number.to_bytes(32, "big"), bytes(32)


def read(unique: int, *chunks: int, volume: int = 1) -> PendingRead:
    pieces = tuple(Piece(each + 100 * (volume - 1), 0, 1, chunk(each)) for each in chunks)
    return PendingRead(volume, unique, pieces, {}, {chunk(each) for each in chunks})


def test_readers_of_one_chunk_share_its_fetch() -> None:
    wants = Wants()
    first, second = read(1, 5), read(2, 5, volume=2)
    assert not wants.wait_for(first, chunk(5), 5, 0.0)
    assert wants.wait_for(second, chunk(5), 5, 0.0)
    (due,) = wants.due(0.0)
    assert list(wants.due(0.0)) == []
    assert wants.came(due) == [first, second]
    assert len(wants) == 0


def test_a_name_with_another_key_is_another_chunk() -> None:
    wants = Wants()
    name, _ = chunk(5)
    wants.wait_for(read(1, 5), chunk(5), 5, 0.0)
    assert not wants.wait_for(read(2, 5), (name, b"k" * 32), 5, 0.0)


def test_attempts_are_bounded() -> None:
    wants = Wants()
    waiting = read(1, 5)
    wants.wait_for(waiting, chunk(5), 5, 0.0)
    now_s = 0.0
    for attempt in range(ATTEMPTS_MAX):
        (due,) = wants.due(now_s)
        assert due.damaged == (attempt > 0)
        waited = wants.failed(due, now_s, damaged=True)
        assert list(wants.due(now_s)) == []  # not at once
        now_s += BETWEEN_ATTEMPTS_S
    assert waited == [waiting]
    assert not wants.wait_for(read(2, 5), chunk(5), 5, now_s)  # the next reader has all of them again


def test_what_takes_too_long_is_told() -> None:
    wants = Wants()
    waiting = read(1, 5)
    wants.wait_for(waiting, chunk(5), 5, 0.0)
    (due,) = wants.due(0.0)
    assert wants.overdue(ATTEMPT_WAIT_S - 0.1) == ([], [])
    assert wants.overdue(ATTEMPT_WAIT_S) == ([due], [])
    assert wants.overdue(READ_WAIT_S) == ([due], [due])
    fetch = due.fetch
    assert wants.give_up(due) == [waiting]
    assert wants.named(fetch) is None


def test_what_is_needed_goes_before_what_may_be() -> None:
    wants = Wants()
    for number in range(100):
        wants.fetch_ahead(1, chunk(number), number)
    assert len(list(wants.due(0.0))) == AHEAD_MAX
    for number in range(90, 140):
        wants.wait_for(read(number, number), chunk(number), number, 0.0)
    due = list(wants.due(0.0))
    assert [want.index for want in due] == list(range(90, 90 + FETCHES_MAX - AHEAD_MAX))


def test_a_volume_that_is_gone_takes_its_own_reads_along_and_no_others() -> None:
    wants = Wants()
    other = read(2, 5, volume=2)
    wants.wait_for(read(1, 5), chunk(5), 5, 0.0)
    wants.wait_for(other, chunk(5), 5, 0.0)
    wants.wait_for(read(3, 6), chunk(6), 6, 0.0)
    wants.drop(1)
    (due,) = wants.due(0.0)
    assert (due.volume, due.index) == (2, 105)
    assert wants.came(due) == [other]
    assert len(wants) == 0


def test_what_could_not_be_asked_for_is_first_the_next_time() -> None:
    wants = Wants()
    for number in (5, 6):
        wants.wait_for(read(number, number), chunk(number), number, 0.0)
    due = wants.due(0.0)
    wants.unsent(next(due))
    due.close()
    assert [want.index for want in wants.due(0.0)] == [5, 6]
