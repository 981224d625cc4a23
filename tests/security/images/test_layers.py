"""Hostile layers through the real, confined flattener: refused with a reason, and nothing published."""

import gzip
import io
import os
import random
import struct
import tarfile
import tempfile
from pathlib import Path

import pytest

from stoker.packaging.flatten import limits
from stoker.packaging.flatten.blobs import uncompressed
from stoker.packaging.flatten.flattener import Flattening
from stoker.packaging.flatten.limits import LayerRefused
from stoker.packaging.flatten.tar import TarReader
from stoker.packaging.flatten.tree import Tree
from tests.images.flattening import SALT, Flat, compress, flatten, flatten_blob, sha256
from tests.images.layers import Device, File, Hardlink, Symlink, layer_tar

GOOD = layer_tar({"a/file": b"content" * 1000, "a/link": Symlink("file")})


async def refusal(blob: bytes, compression: str = "none", tar: bytes = b"", **digests: str) -> LayerRefused:
    with pytest.raises(LayerRefused) as refused:
        await flatten_blob(blob, compression, tar or blob, Flat(), **digests)
    return refused.value


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
async def test_every_compression_gives_the_same_chunks(compression: str) -> None:
    plain = await flatten(GOOD)
    packed = await flatten(GOOD, compression=compression)
    assert packed.table == plain.table
    assert packed.stored == plain.stored


@pytest.mark.parametrize("what", ["digest", "diff_id"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_wrong_digests(what: str, compression: str) -> None:
    problem = await refusal(compress(GOOD, compression), compression, GOOD, **{what: sha256(b"another")})
    assert (problem.kind, what if compression == "gzip" else "a layer's" in problem.why) != ("", False)
    assert "sha256:" in problem.why


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
async def test_truncated_blobs(compression: str, kept: float) -> None:
    blob = compress(GOOD, compression)
    problem = await refusal(blob[: int(len(blob) * kept)], compression, GOOD)
    assert problem.kind == "invalid"


async def test_not_compressed_at_all() -> None:
    assert (await refusal(GOOD, "gzip", GOOD)).kind == "invalid"
    assert (await refusal(GOOD, "zstd", GOOD)).kind == "invalid"
    assert (await refusal(GOOD, "bzip2", GOOD)).kind == "media_type"


async def test_many_gzip_members_are_one_layer() -> None:
    halves = [GOOD[:5000], b"", GOOD[5000:]]
    blob = b"".join(gzip.compress(half) for half in halves) + bytes(100)
    flat = Flat()
    await flatten_blob(blob, "gzip", GOOD, flat)
    assert flat.table == (await flatten(GOOD)).table


@pytest.mark.parametrize("end", [600, 1000, 1024 + 3000])
async def test_truncated_archives(end: int) -> None:
    assert (await refusal(GOOD[:end])).kind == "invalid"


def test_what_an_image_may_still_grow_is_the_limit() -> None:
    """Zeros for ever: the digest would be found wrong only after all of them."""
    blob = gzip.compress(bytes(16 << 20)) * 50
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as scratch:
        file.write(blob)
        file.flush()
        with pytest.raises(LayerRefused) as refused:
            uncompressed(
                file.fileno(),
                scratch.fileno(),
                compression="gzip",
                digest=sha256(blob),
                diff_id=sha256(GOOD),
                room_bytes=100 << 20,
                tell=lambda _: None,
            )
        assert refused.value.kind == "too_big"
        assert os.fstat(scratch.fileno()).st_size <= 100 << 20


async def test_a_bomb_of_one_frame() -> None:
    import zstandard

    blob = zstandard.ZstdCompressor(level=19).compress(bytes(300 << 20))
    assert len(blob) < 300_000
    problem = await refusal(blob, "zstd", GOOD)
    assert "times as big" in problem.why


async def test_a_file_that_says_it_is_huge() -> None:
    member = tarfile.TarInfo("huge")
    member.size = 1 << 40
    assert (await refusal(member.tobuf() + bytes(1024))).kind == "invalid"


def sparse_pax(size: str, pieces: str, stored: bytes = b"x" * 512) -> bytes:
    member = tarfile.TarInfo("sparse")
    member.size = len(stored)
    member.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": size,
        "GNU.sparse.map": pieces,
    }
    return member.tobuf(tarfile.PAX_FORMAT) + stored + bytes(-len(stored) % 512) + bytes(1024)


@pytest.mark.parametrize(
    ("size", "pieces", "kind"),
    [
        (str(1 << 45), "0,512", "too_big"),
        ("-5", "0,512", "invalid"),
        ("1000", "0,2000", "invalid"),
        ("9000", "500,512,100,1", "invalid"),
        ("9000", "0,1024", "invalid"),
        ("9000", "0", "invalid"),
        ("9000", "zero,1", "invalid"),
        ("9" * 30, "0,1", "invalid"),
    ],
)
async def test_sparse_files_that_lie(size: str, pieces: str, kind: str) -> None:
    assert (await refusal(sparse_pax(size, pieces))).kind == kind


def raw_pax(records: bytes, flag: bytes = b"x") -> bytes:
    head = tarfile.TarInfo("pax")
    head.size = len(records)
    head.type = flag
    return head.tobuf() + records + bytes(-len(records) % 512)


@pytest.mark.parametrize(
    "records",
    [
        b"999999999999 a=b\n",
        b"5 a=b",
        b"0 a=b\n",
        b"-5 a=b\n",
        b"6 ab\n\n",
        b"x",
        b"13 path=a\0bc\n",
        b"9 uid=-1\n",
        b"12 mtime=xy\n",
        b"25 size=99999999999999999\n",
    ],
)
def test_damaged_extended_headers(records: bytes) -> None:
    with pytest.raises(LayerRefused):
        read(raw_pax(records) + GOOD)


def test_extended_headers_are_bounded() -> None:
    head = tarfile.TarInfo("pax")
    head.size, head.type = limits.EXTENSION_MAX_BYTES + 1, b"x"
    with pytest.raises(LayerRefused):
        read(head.tobuf() + bytes(2 << 20) + GOOD)
    with pytest.raises(LayerRefused):
        read(raw_pax(b"8 aa=b\n\n") * (limits.EXTENSIONS_MAX + 1) + GOOD)
    with pytest.raises(LayerRefused):
        read(raw_pax(b"11 path=xy\n", b"g") + GOOD)


def read(tar: bytes) -> Tree:
    tree = Tree()
    with tempfile.TemporaryFile() as file:
        file.write(tar)
        file.flush()
        for entry in TarReader(file.fileno(), len(tar)):
            tree.apply(entry)
    return tree


def test_too_many_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ENTRIES_MAX", 50)
    with pytest.raises(LayerRefused) as refused:
        read(layer_tar({f"f{number}": b"" for number in range(51)}))
    assert refused.value.kind == "too_big"


def test_too_long_names_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NAMES_TOTAL_MAX_BYTES", 1000)
    with pytest.raises(LayerRefused) as refused:
        read(layer_tar({f"f{number}" * 40: b"" for number in range(20)}))
    assert refused.value.kind == "too_big"


def test_damaged_archives_are_refused_or_read_but_never_crash() -> None:
    """What a bit or a stolen block does to an archive with everything in it: an answer or LayerRefused."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("n" * 150, "short"):
            member = tarfile.TarInfo(name)
            member.size = 700
            tar.addfile(member, io.BytesIO(b"d" * 700))
    whole = (
        sparse_pax("90000", "0,100,80000,412")[:-1024]
        + layer_tar(
            {
                "l" * 120: File(b"x" * 600, xattrs={"user.a": "b"}),
                "h": Hardlink("l" * 120),
                "s": Symlink("t" * 200),
                "dev/x": Device(1, 3),
                ".wh.h": b"",
            }
        )[:-1024]
        + stream.getvalue()
    )
    chance = random.Random(7)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1500):
        damaged = bytearray(whole)
        block = 512 * chance.randrange(len(whole) // 512)
        for _ in range(chance.randrange(1, 6)):
            damaged[block + chance.randrange(512)] = chance.choice(
                (0, 0x80, 0xFF, 0x30, 0x37, chance.randrange(256))
            )
        if chance.random() < 0.9:
            _mend_checksum(damaged, block)
        if chance.random() < 0.1:
            del damaged[chance.randrange(len(damaged)) :]
        try:
            read(bytes(damaged))
            outcomes["read"] += 1
        except LayerRefused:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


def _mend_checksum(damaged: bytearray, block: int) -> None:
    damaged[block + 148 : block + 156] = b" " * 8
    total = sum(damaged[block : block + 512])
    damaged[block + 148 : block + 156] = b"%06o\0 " % total


async def test_the_flattener_can_open_nothing() -> None:
    """Landlock is on, where this host has it, and what it lacks is said."""
    with tempfile.TemporaryFile(dir="/var/tmp") as scratch:
        async with Flattening(salt=SALT, scratch=scratch.fileno(), store=Flat().store) as flattening:
            status = Path(f"/proc/{flattening._process.pid}/status").read_text()
            assert "NoNewPrivs:\t1" in status
            ours = os.readlink("/proc/self/ns/net")
            if "network namespace" not in flattening.missing:
                assert os.geteuid() != 0 or os.readlink(f"/proc/{flattening._process.pid}/ns/net") != ours


async def test_damage_in_the_middle_of_a_layer_publishes_nothing() -> None:
    flat = Flat()
    content = random.Random(1).randbytes(3_000_000)
    tar = layer_tar({"a": content[:2_000_000], "b": content[2_000_000:]})
    blob = bytearray(gzip.compress(tar, 1))
    struct.pack_into("<I", blob, len(blob) // 2, 0xDEADBEEF)
    with pytest.raises(LayerRefused):
        await flatten_blob(bytes(blob), "gzip", tar, flat)
    assert flat.answer is None
    assert not flat.stored
