"""Sealed artifacts: what goes in comes out, by range too, and nothing that was touched comes out at all."""

import os
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.packaging.artifacts import (
    HEADER_BYTES,
    SEALED_SEGMENT_BYTES,
    SEGMENT_BYTES,
    ArtifactDamaged,
    SealedArtifact,
    open_bytes,
    seal,
    seal_bytes,
    sealed_bytes,
)

KEY = bytes(range(32))
NAME = "code/0123/package"
PLAIN = b"known plaintext " * (3 * SEGMENT_BYTES // 16) + b"end"


def opened(sealed: bytes, key: bytes = KEY, name: str = NAME) -> SealedArtifact:
    return SealedArtifact(lambda offset, size: sealed[offset : offset + size], len(sealed), key, name)


@pytest.mark.parametrize("size", [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, len(PLAIN)])
def test_round_trip_at_the_edges_of_segments(size: int) -> None:
    sealed = seal_bytes(PLAIN[:size], KEY, NAME)
    assert len(sealed) == sealed_bytes(size)
    assert open_bytes(sealed, KEY, NAME) == PLAIN[:size]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, len(PLAIN)), st.integers(0, len(PLAIN)))
def test_any_range_can_be_read(start: int, end: int) -> None:
    start, end = min(start, end), max(start, end)
    assert b"".join(SEALED_WHOLE.read(start, end - start)) == PLAIN[start:end]


SEALED = seal_bytes(PLAIN, KEY, NAME)
SEALED_WHOLE = opened(SEALED)


def test_a_range_reads_only_the_segments_it_lies_in() -> None:
    asked: list[tuple[int, int]] = []

    def read_at(offset: int, size: int) -> bytes:
        asked.append((offset, size))
        return SEALED[offset : offset + size]

    artifact = SealedArtifact(read_at, len(SEALED), KEY, NAME)
    asked.clear()
    assert b"".join(artifact.read(SEGMENT_BYTES + 5, 3)) == PLAIN[SEGMENT_BYTES + 5 :][:3]
    assert asked == [(HEADER_BYTES + SEALED_SEGMENT_BYTES, SEALED_SEGMENT_BYTES)]


def test_nothing_recognisable_and_never_twice_the_same() -> None:
    assert b"known" not in SEALED
    assert seal_bytes(PLAIN, KEY, NAME)[HEADER_BYTES:] != SEALED[HEADER_BYTES:]


def _swapped(sealed: bytes) -> bytes:
    first, second = HEADER_BYTES, HEADER_BYTES + SEALED_SEGMENT_BYTES
    third = second + SEALED_SEGMENT_BYTES
    return sealed[:first] + sealed[second:third] + sealed[first:second] + sealed[third:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in a segment": lambda sealed: sealed[:-1],
    "cut between segments": lambda sealed: sealed[: HEADER_BYTES + SEALED_SEGMENT_BYTES],
    "all segments cut": lambda sealed: sealed[:HEADER_BYTES],
    "header cut": lambda sealed: sealed[: HEADER_BYTES - 1],
    "nothing left": lambda sealed: b"",
    "grown": lambda sealed: sealed + b"\0",
    "grown by a segment": lambda sealed: sealed + sealed[-SEALED_SEGMENT_BYTES:],
    "segments swapped": _swapped,
    "segment of another sealing": lambda sealed: (
        sealed[: HEADER_BYTES + SEALED_SEGMENT_BYTES]
        + seal_bytes(PLAIN, KEY, NAME)[HEADER_BYTES + SEALED_SEGMENT_BYTES :]
    ),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_what_was_changed_does_not_open(damage: str) -> None:
    with pytest.raises(ArtifactDamaged):
        open_bytes(DAMAGES[damage](SEALED), KEY, NAME)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 8 * sealed_bytes(1000) - 1))
def test_every_bit_counts(bit: int) -> None:
    sealed = bytearray(seal_bytes(PLAIN[:1000], KEY, NAME))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ArtifactDamaged):
        open_bytes(sealed, KEY, NAME)


def test_it_opens_under_its_own_name_and_key_only() -> None:
    with pytest.raises(ArtifactDamaged):
        open_bytes(SEALED, KEY, "code/0123/image")
    with pytest.raises(ArtifactDamaged):
        open_bytes(SEALED, os.urandom(32), NAME)


def test_a_source_that_is_shorter_than_it_said_is_not_sealed() -> None:
    with pytest.raises(ArtifactDamaged, match="ended before"):
        list(seal(lambda size: b"x" * (size - 1), 10, KEY, NAME))


def test_ranges_outside_are_not_read() -> None:
    with pytest.raises(ArtifactDamaged, match="ends at"):
        list(SEALED_WHOLE.read(len(PLAIN), 1))
    with pytest.raises(ValueError, match="not a range"):
        list(SEALED_WHOLE.read(-1, 1))
