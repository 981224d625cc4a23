"""Sealing and opening chunks: known answers, round trips, damage."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.packaging.chunks.sealing import (
    CHUNK_BYTES,
    ChunkDamaged,
    SealedChunk,
    open_chunk,
    seal_chunk,
)

SALT = bytes(range(32))

contents = st.builds(
    lambda head, zeros, tail, more: head + bytes(zeros) + tail + bytes(more),
    st.binary(max_size=300),
    st.integers(0, 70_000),
    st.binary(max_size=300),
    st.integers(0, 140_000),
)


def sealed(plain: bytes, salt: bytes = SALT) -> SealedChunk:
    chunk = seal_chunk(plain, salt)
    assert chunk is not None
    return chunk


def test_known_answer() -> None:
    """The key by hashlib, the content by ``openssl enc -aes-256-ctr -iv 0 -K KEY``."""
    chunk = sealed(b"stoker keeps functions warm\n")
    assert chunk.key == hashlib.sha256(SALT + b"stoker keeps functions warm\n").digest()
    assert chunk.key.hex() == "12db643134a336d03167bbc81b94a30cb0f3c8bbd5721d8922ad8e51b63c77f2"
    assert bytes(chunk.content).hex() == "d82d5d4683217ba0068f84d086f9a18923e8f38a10161043c339e1ad"
    assert chunk.name == hashlib.sha256(chunk.content).digest()


def test_a_full_chunk_has_known_bytes() -> None:
    plain = bytes(range(1, 256)) * (CHUNK_BYTES // 255) + b"x" * (CHUNK_BYTES % 255)
    assert sealed(plain).name.hex() == "39f59a31fe997fd19f0062c8be26ac855bd098b99b7239c48e71b4bb95a87b9a"


@given(contents)
def test_what_was_sealed_opens_without_its_trailing_zeros(plain: bytes) -> None:
    chunk = seal_chunk(plain, SALT)
    if chunk is None:
        assert not plain.strip(b"\0")
        return
    assert open_chunk(chunk.content, chunk.name, chunk.key) == plain.rstrip(b"\0")


@given(contents, st.integers(0, 1000))
def test_trailing_zeros_change_nothing(plain: bytes, zeros: int) -> None:
    assert seal_chunk(plain + bytes(zeros), SALT) == seal_chunk(plain, SALT)


@given(contents)
def test_every_kind_of_buffer_seals_alike(plain: bytes) -> None:
    scratch = bytearray(CHUNK_BYTES)
    direct = seal_chunk(plain, SALT)
    assert seal_chunk(bytearray(plain), SALT) == direct
    assert seal_chunk(memoryview(b"." + plain)[1:], SALT, scratch) == direct
    if direct is not None:
        assert open_chunk(memoryview(direct.content), direct.name, direct.key, scratch) == plain.rstrip(b"\0")


@given(st.binary(min_size=1, max_size=200).filter(lambda plain: plain.strip(b"\0")), st.data())
def test_a_flipped_bit_is_found(plain: bytes, data: st.DataObject) -> None:
    chunk = sealed(plain)
    damaged = bytearray(chunk.content)
    bit = data.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(ChunkDamaged, match=chunk.name.hex()):
        open_chunk(damaged, chunk.name, chunk.key)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda _: b""])
def test_truncated_and_longer_content_is_found(change: object) -> None:
    chunk = sealed(b"some bytes")
    with pytest.raises(ChunkDamaged):
        open_chunk(change(bytes(chunk.content)), chunk.name, chunk.key)  # type: ignore[operator]


def test_holes_are_not_stored() -> None:
    assert seal_chunk(bytes(CHUNK_BYTES), SALT) is None
    assert seal_chunk(b"", SALT) is None


def test_another_salt_gives_another_key_and_content() -> None:
    one, other = sealed(b"some bytes"), sealed(b"some bytes", bytes(32))
    assert one.key != other.key
    assert one.content != other.content


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        seal_chunk(bytes(CHUNK_BYTES + 1), SALT)
    with pytest.raises(ValueError, match="salt"):
        seal_chunk(b"x", b"short")
    with pytest.raises(ValueError, match="scratch"):
        seal_chunk(b"x", SALT, bytearray(10))
