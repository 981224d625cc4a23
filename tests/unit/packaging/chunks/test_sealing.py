"""Sealing and opening chunks: known answers, round trips, damage."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.packaging.chunks.sealing import (
    CHUNK_BYTES,
    SEALED_MIN_BYTES,
    ChunkDamaged,
    SealedChunk,
    open_chunk,
    seal_chunk,
)

SALT = bytes(range(32))
SCRATCH = bytearray(CHUNK_BYTES)

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


def opened_whole(chunk: SealedChunk) -> bytes:
    return bytes(open_chunk(chunk.content, chunk.name, chunk.key))


def opened(chunk: SealedChunk) -> bytes:
    return opened_whole(chunk).rstrip(b"\0")


def test_short_chunks_keep_zeros_so_that_no_two_have_one_name() -> None:
    chunks = [sealed(bytes([one])) for one in range(1, 256)]
    assert len({chunk.name for chunk in chunks}) == 255
    assert {len(chunk.content) for chunk in chunks} == {SEALED_MIN_BYTES}
    assert opened_whole(chunks[0]) == b"\1".ljust(SEALED_MIN_BYTES, b"\0")
    assert len(sealed(b"x" * 65).content) == 65


def test_known_answer() -> None:
    """The key by hashlib, the content by ``openssl enc -aes-256-ctr -iv 0 -K KEY``."""
    chunk = sealed(b"stoker keeps functions warm, and their code encrypted at rest, in chunks\n")
    assert (
        chunk.key
        == hashlib.sha256(
            SALT + b"stoker keeps functions warm, and their code encrypted at rest, in chunks\n"
        ).digest()
    )
    assert chunk.key.hex() == "69eae5a11230f2c8824393091bd1d4b3768e4fe5c4dcde8fcb771605f40aa0bd"
    assert bytes(chunk.content).hex() == (
        "0e0e21d7f4fd322e7740397fcf2f54724f2ab666faeeeeb464b76573f1ac48947f4c850074d7e3d9dccbe10794"
        "f411717b98bb3925b618fcd90fb708fd88869ab7da70fd7396795bcd"
    )
    assert chunk.name == hashlib.sha256(chunk.content).digest()


def test_a_full_chunk_has_known_bytes() -> None:
    plain = bytes(range(1, 256)) * (CHUNK_BYTES // 255) + b"x" * (CHUNK_BYTES % 255)
    assert sealed(plain).name.hex() == "39f59a31fe997fd19f0062c8be26ac855bd098b99b7239c48e71b4bb95a87b9a"


@settings(deadline=None)  # buffers of 70 KB take their time on a busy machine
@given(contents)
def test_what_was_sealed_opens_without_its_trailing_zeros(plain: bytes) -> None:
    chunk = seal_chunk(plain, SALT)
    if chunk is None:
        assert not plain.strip(b"\0")
        return
    assert opened(chunk) == plain.rstrip(b"\0")


@settings(deadline=None)  # buffers of 70 KB take their time on a busy machine
@given(contents, st.integers(0, 1000))
def test_trailing_zeros_change_nothing(plain: bytes, zeros: int) -> None:
    assert seal_chunk(plain + bytes(zeros), SALT) == seal_chunk(plain, SALT)


@settings(deadline=None)  # buffers of 70 KB take their time on a busy machine
@given(contents)
def test_every_kind_of_buffer_seals_alike(plain: bytes) -> None:
    scratch = SCRATCH
    direct = seal_chunk(plain, SALT)
    assert seal_chunk(bytearray(plain), SALT) == direct
    assert seal_chunk(memoryview(b"." + plain)[1:], SALT, scratch) == direct
    if direct is not None:
        assert open_chunk(memoryview(direct.content), direct.name, direct.key, scratch) == opened_whole(
            direct
        )


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
