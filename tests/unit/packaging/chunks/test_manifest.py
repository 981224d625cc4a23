"""Manifests: round trips, rules, authenticity, hostile bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.packaging.chunks.manifest import (
    CONFIGURATION_MAX_BYTES,
    SIZE_MAX_BYTES,
    ChunkEntry,
    Manifest,
    ManifestDamaged,
    ManifestPlace,
    make_manifest,
    open_manifest,
    read_public,
    seal_manifest,
)
from stoker.packaging.chunks.sealing import CHUNK_BYTES

DATA_KEY, KEY_ID, NONCE = b"d" * 32, b"i" * 16, b"n" * 12
PLACE = ManifestPlace("0f" * 16, "000000000000", "sha256:" + "a" * 64)

hashes = st.binary(min_size=32, max_size=32)
manifests = st.builds(
    lambda chunks, spare, configuration: make_manifest(
        (max(chunks, default=-1) + 1) * CHUNK_BYTES + spare,
        (ChunkEntry(index, name, key) for index, (name, key) in chunks.items()),
        configuration,
    ),
    st.dictionaries(st.integers(0, 2000), st.tuples(hashes, hashes), max_size=8),
    st.integers(0, 10 * CHUNK_BYTES),
    st.binary(max_size=40),
)


def sealed(manifest: Manifest, place: ManifestPlace = PLACE) -> bytes:
    return seal_manifest(manifest, place, key_id=KEY_ID, data_key=DATA_KEY, nonce=NONCE)


SMALL = make_manifest(
    3 * CHUNK_BYTES, [ChunkEntry(2, b"b" * 32, b"B" * 32), ChunkEntry(0, b"a" * 32, b"A" * 32)], b"{}"
)


@settings(deadline=None)
@given(manifests)
def test_what_is_sealed_opens(manifest: Manifest) -> None:
    content = sealed(manifest)
    assert open_manifest(content, PLACE, DATA_KEY) == manifest
    public = read_public(content)
    assert (public.root, public.key_id, public.size_bytes) == (PLACE.root, KEY_ID, manifest.size_bytes)
    assert list(public.each_name()) == [entry.name for entry in manifest.entries()]
    assert public.indexes == manifest.indexes


def test_chunks_are_found_by_their_place() -> None:
    assert SMALL.chunk(0) == ChunkEntry(0, b"a" * 32, b"A" * 32)
    assert SMALL.chunk(1) is None
    assert SMALL.chunk(2) == ChunkEntry(2, b"b" * 32, b"B" * 32)
    assert SMALL.chunk(3) is None


def test_keys_and_configuration_are_not_readable() -> None:
    manifest = make_manifest(CHUNK_BYTES, [ChunkEntry(0, b"a" * 32, b"K" * 32)], b"PASSWORD=hunter2")
    content = sealed(manifest)
    assert b"K" * 8 not in content
    assert b"hunter2" not in content


@given(st.data())
def test_a_changed_bit_is_found(data: st.DataObject) -> None:
    content = bytearray(sealed(SMALL))
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(ManifestDamaged):
        open_manifest(bytes(content), PLACE, DATA_KEY)


@pytest.mark.parametrize(
    "place",
    [
        ManifestPlace("0e" * 16, PLACE.account, PLACE.digest),
        ManifestPlace(PLACE.root, "000000000001", PLACE.digest),
        ManifestPlace(PLACE.root, PLACE.account, "sha256:" + "b" * 64),
    ],
)
def test_it_opens_in_its_own_place_alone(place: ManifestPlace) -> None:
    with pytest.raises(ManifestDamaged):
        open_manifest(sealed(SMALL), place, DATA_KEY)


def test_it_opens_with_its_own_key_alone() -> None:
    with pytest.raises(ManifestDamaged):
        open_manifest(sealed(SMALL), PLACE, b"e" * 32)


@given(st.binary(max_size=400), st.integers(0, 400))
def test_hostile_bytes_are_refused(noise: bytes, at: int) -> None:
    content = sealed(SMALL)
    hostile = content[:at] + noise + content[at + len(noise) :]
    for candidate in (noise, hostile, content[:at], content + noise):
        if candidate == content:
            continue
        with pytest.raises(ManifestDamaged):
            open_manifest(candidate, PLACE, DATA_KEY)
        try:
            public = read_public(candidate)
        except ManifestDamaged:
            continue
        assert len(public.names) == 32 * len(public.indexes) <= len(candidate)


def test_counts_are_believed_only_when_the_bytes_are_there() -> None:
    content = bytearray(sealed(SMALL))
    content[60:64] = b"\xff\xff\xff\xff"
    with pytest.raises(ManifestDamaged, match="length"):
        read_public(bytes(content))


ENTRY = ChunkEntry(0, b"a" * 32, b"A" * 32)


@pytest.mark.parametrize(
    ("size_bytes", "entries", "configuration"),
    [
        (CHUNK_BYTES, [ENTRY, ENTRY], b""),
        (CHUNK_BYTES, [ChunkEntry(1, b"a" * 32, b"A" * 32)], b""),
        (0, [ENTRY], b""),
        (CHUNK_BYTES, [ChunkEntry(-1, b"a" * 32, b"A" * 32)], b""),
        (CHUNK_BYTES, [ChunkEntry(0, b"a" * 31, b"A" * 32)], b""),
        (CHUNK_BYTES, [ChunkEntry(0, b"a" * 32, b"A" * 33)], b""),
        (-1, [], b""),
        (SIZE_MAX_BYTES + 1, [], b""),
        (0, [], bytes(CONFIGURATION_MAX_BYTES + 1)),
    ],
)
def test_what_breaks_a_rule_is_not_made(
    size_bytes: int, entries: list[ChunkEntry], configuration: bytes
) -> None:
    with pytest.raises(ValueError, match=r"chunk|image"):
        make_manifest(size_bytes, entries, configuration)


def test_a_manifest_of_10_gb_is_small_and_quick() -> None:
    count = 20_480
    entries = (ChunkEntry(index, index.to_bytes(32), index.to_bytes(32)) for index in range(count))
    manifest = make_manifest(count * CHUNK_BYTES, entries, b"{}")
    content = sealed(manifest)
    assert len(content) < 1_400_000
    assert open_manifest(content, PLACE, DATA_KEY) == manifest
