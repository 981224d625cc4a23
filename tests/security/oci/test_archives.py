"""Archives made to hurt whoever reads them: no tar, endless headers, links in circles, sizes that are not there."""

import io
import json
import os
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.packaging.oci import archive_index, documents
from stoker.packaging.oci.archive import ImageArchive
from stoker.packaging.oci.archive_index import ArchiveIndex
from stoker.packaging.oci.references import parse_local_name
from stoker.services.images import ImageRefused
from tests.images.layers import Device, Fifo, Folder, Hardlink, Layer, Symlink, layer_tar
from tests.images.layout import layout_archive, write_image

CONFIG = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}}).encode()


def saved(**changes: Any) -> bytes:
    return json.dumps([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": []} | changes]).encode()


def read(content: bytes, tmp_path: Path) -> ImageArchive:
    file = tmp_path / "archive.tar"
    file.write_bytes(content)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        archive = ImageArchive(descriptor)
        archive.read()
        archive.architectures(archive.select(None))
        return archive
    finally:
        os.close(descriptor)


def refused(content: bytes, tmp_path: Path) -> str:
    began_s = time.process_time()
    with pytest.raises(ImageRefused) as problem:
        read(content, tmp_path)
    assert time.process_time() - began_s < 3.0
    assert len(str(problem.value)) < 600
    return problem.value.kind


def test_a_good_one_is_read(tmp_path: Path) -> None:
    layer: Layer = {"config.json": CONFIG, "manifest.json": saved()}
    assert read(layer_tar(layer), tmp_path).select("a:1").digest


@pytest.mark.parametrize(
    "layer",
    [
        {"manifest.json": saved(Config="../../../etc/passwd")},
        {"manifest.json": saved(Config="/etc/passwd")},
        {"config.json": Symlink("/etc/passwd"), "manifest.json": saved()},
        {"config.json": Symlink("config.json"), "manifest.json": saved()},
        {"config.json": Symlink("b"), "b": Symlink("config.json"), "manifest.json": saved()},
        {"config.json": Hardlink("nothing"), "manifest.json": saved()},
        {"config.json": Folder(), "manifest.json": saved()},
        {"config.json": CONFIG, "manifest.json": saved(Layers=["layer.tar"]), "layer.tar": b"x"},
        {"config.json": CONFIG, "manifest.json": saved(Layers=["x"] * 1000)},
        {"manifest.json": b"[" * 100_000},
        {"manifest.json": b" " * (documents.MANIFEST_MAX_BYTES + 1)},
        {"manifest.json": b"[]"},
        {"index.json": b"{}"},
        {"index.json": b'{"manifests":[]}'},
        {"index.json": json.dumps({"manifests": [{"digest": "sha256:" + "0" * 64, "size": 1}]}).encode()},
        {"dev/null": Device(1, 3), "config.json": CONFIG, "manifest.json": saved()},
        {"pipe": Fifo(), "config.json": CONFIG, "manifest.json": saved()},
    ],
)
def test_archives_that_lie(tmp_path: Path, layer: Layer) -> None:
    assert refused(layer_tar(layer), tmp_path) in ("invalid", "missing", "too_big")


def header(**changes: Any) -> bytes:
    member = tarfile.TarInfo("manifest.json")
    for name, value in changes.items():
        setattr(member, name, value)
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"x" * 512,
        header(size=1 << 60),
        header(size=10**12),
        header(size=100),
        header(size=5)[:300],
        header(type=b"x", size=1 << 40),
        header(type=b"x", size=100_000) + b"x" * 100_352,
        header(type=b"L", size=100_000) + b"x" * 100_352,
        header(type=b"x", size=20) + b"999999999 path=a\n".ljust(512, b"\0"),
        header(type=b"x", size=20) + b"3 a\n3 a\n".ljust(512, b"x"),
        header(type=b"S", size=0),
    ],
)
def test_headers_that_lie(tmp_path: Path, content: bytes) -> None:
    assert refused(content, tmp_path) in ("invalid", "missing")


def test_a_checksum_that_is_wrong(tmp_path: Path) -> None:
    whole = bytearray(layer_tar({"config.json": CONFIG, "manifest.json": saved()}))
    whole[0] ^= 1
    assert refused(bytes(whole), tmp_path) == "invalid"


def test_members_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_index, "MEMBERS_MAX", 100)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for number in range(200):
            tar.addfile(tarfile.TarInfo(f"{number}"))
    assert refused(stream.getvalue(), tmp_path) == "invalid"


def test_a_blob_that_is_something_else(tmp_path: Path) -> None:
    digest = write_image(tmp_path / "layout", [{"a": "b" * 1000}])
    whole = layout_archive(tmp_path / "layout", tmp_path / "image.tar").read_bytes()
    read(whole, tmp_path)
    at = whole.index(b'"schemaVersion":2,"mediaType"')
    damaged = whole[:at] + b'"schemaVersion":3' + whole[at + 17 :]
    assert digest
    assert refused(damaged, tmp_path) == "invalid"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_flipped_bits_are_refused_or_change_nothing(tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "whole.tar"
    if not file.exists():
        write_image(tmp_path / "layout", [{"a": "b" * 100}])
        layout_archive(tmp_path / "layout", file)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    flipped = tmp_path / "flipped.tar"
    flipped.write_bytes(content)
    descriptor = os.open(flipped, os.O_RDONLY)
    try:
        archive = ImageArchive(descriptor)
        archive.read()
        image = archive.select(None)
        manifest = archive.manifest(parse_local_name("a").at(image.digest), "x86_64")
        assert documents.digest_of(manifest.content) == manifest.digest
        assert documents.digest_of(manifest.config_content) == manifest.config.digest
    except ImageRefused:
        pass
    finally:
        os.close(descriptor)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=2048))
def test_any_bytes_are_refused_or_read(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "any.tar"
    file.write_bytes(content)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        ArchiveIndex(descriptor)
    except ImageRefused:
        pass
    finally:
        os.close(descriptor)
