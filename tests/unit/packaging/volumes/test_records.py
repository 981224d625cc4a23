"""Records of the kernel and of the service: what is malformed is refused, whatever it is."""

import contextlib
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.packaging.chunks.manifest import ChunkEntry, Manifest, make_manifest
from stoker.packaging.chunks.sealing import CHUNK_BYTES
from stoker.packaging.volumes import fuse_records as fuse
from stoker.packaging.volumes.profile import decode_profile, encode_profile, is_news
from stoker.packaging.volumes.records import (
    PROFILE_CHUNKS_MAX,
    TableDamaged,
    decode_order,
    decode_report,
    decode_table,
    encode_table,
)

HEADER = struct.Struct("<IIQQIIIHH")


def request(opcode: int, body: bytes = b"", length: int | None = None) -> memoryview:
    whole = HEADER.size + len(body) if length is None else length
    return memoryview(HEADER.pack(whole, opcode, 7, 1, 0, 0, 0, 0, 0) + body)


def test_reads_what_the_kernel_writes() -> None:
    body = struct.pack("<QQIIQII", 0, 1 << 40, 131072, 0, 0, 0, 0)
    assert fuse.parse_request(request(fuse.Opcode.READ, body)) == fuse.FuseRequest(15, 7, 1, 1 << 40, 131072)
    opening = fuse.parse_request(request(fuse.Opcode.INIT, struct.pack("<IIII", 7, 45, 1 << 20, 0xFFFFFFFF)))
    assert (opening.minor, opening.flags) == (45, 0xFFFFFFFF)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(39),
        request(3, b"", 41),
        request(3, b"x", 40),
        request(15, bytes(15)),
        request(26, bytes(8)),
        request(26, struct.pack("<IIII", 8, 0, 0, 0)),
        request(26, struct.pack("<IIII", 7, 12, 0, 0)),
    ],
)
def test_refuses_malformed_requests(data: bytes) -> None:
    with pytest.raises(fuse.MalformedRequest):
        fuse.parse_request(memoryview(data))


@given(st.binary(max_size=200))
def test_random_requests_never_do_anything_else(data: bytes) -> None:
    with contextlib.suppress(fuse.MalformedRequest):
        fuse.parse_request(memoryview(data))


@given(st.binary(max_size=200))
def test_random_orders_and_reports_are_refused(data: bytes) -> None:
    for decode in (decode_order, decode_report):
        with contextlib.suppress(msgspec.MsgspecError):
            decode(data)


def table(size_bytes: int, indexes: list[int]) -> Manifest:
    entries = [ChunkEntry(index, bytes([index % 256]) * 32, bytes([index % 251]) * 32) for index in indexes]
    return make_manifest(size_bytes, entries, b"")


@given(st.integers(0, 64 * CHUNK_BYTES), st.sets(st.integers(0, 63)))
def test_tables_come_back(size_bytes: int, wanted: set[int]) -> None:
    whole = table(size_bytes, sorted(index for index in wanted if index * CHUNK_BYTES < size_bytes))
    assert decode_table(encode_table(whole)) == whole


@given(st.data())
def test_damaged_tables_are_refused_or_are_tables(data: st.DataObject) -> None:
    content = bytearray(encode_table(table(5 * CHUNK_BYTES, [0, 2, 4])))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    with pytest.raises(TableDamaged):
        decode_table(bytes(content[:cut]) if cut < len(content) else bytes(content) + b"x")
    with contextlib.suppress(TableDamaged):
        read = decode_table(bytes(content))
        assert all(index * CHUNK_BYTES < read.size_bytes for index in read.indexes)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50), st.integers(0, 100))
def test_a_profile_names_only_chunks_that_are_there(indexes: list[int], chunks: int) -> None:
    read = decode_profile(encode_profile(tuple(indexes)), chunks)
    assert set(read) == {index for index in indexes if index < chunks}
    assert len(read) == len(set(read))


@given(st.binary(max_size=100))
def test_a_damaged_profile_is_none(content: bytes) -> None:
    assert decode_profile(content, 10) == () or content.startswith(b"STOKPRO1")
    assert len(decode_profile(encode_profile(tuple(range(9999))), 9999)) == PROFILE_CHUNKS_MAX


def test_a_profile_is_stored_again_when_a_start_read_something_else() -> None:
    assert is_news((), (1, 2))
    assert not is_news((1, 2), ())
    assert not is_news(tuple(range(100)), tuple(range(95)))
    assert is_news(tuple(range(100)), tuple(range(50)))
