"""Writes small OCI images into a layout folder without an engine, valid or wrong on purpose."""

import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.images.layers import Layer, write_layer_tar

OCI = {
    "manifest": "application/vnd.oci.image.manifest.v1+json",
    "index": "application/vnd.oci.image.index.v1+json",
    "config": "application/vnd.oci.image.config.v1+json",
    "none": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
DOCKER = {
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "index": "application/vnd.docker.distribution.manifest.list.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "none": "application/vnd.docker.image.rootfs.diff.tar",
    "gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
REF_NAME = "org.opencontainers.image.ref.name"
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Blob:
    """A blob that lies in the layout."""

    media_type: str
    digest: str
    size_bytes: int
    diff_id: str = ""
    """Of a layer: the digest of its tar before compression."""

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size_bytes, **more}


def write_image(
    layout: Path,
    layers: Sequence[Layer | Path | Blob],
    config: Mapping[str, Any] | None = None,
    *,
    tag: str | None = "latest",
    architecture: str = "amd64",
    variant: str | None = None,
    compression: str = "gzip",
    docker: bool = False,
) -> str:
    """Add an image to the layout and return its manifest's digest.

    Args:
        layers: lowest first; a dictionary, an uncompressed tar, or a blob that ``add_layer`` returned.
        config: what goes under ``config`` in the image's configuration: Cmd, Entrypoint, Env, User, WorkingDir.
        tag: the name in index.json; None leaves the manifest unnamed, to be put into an index.
        compression: ``gzip``, ``none`` or ``zstd``.
    """
    types = DOCKER if docker else OCI
    blobs = [
        layer if isinstance(layer, Blob) else add_layer(layout, layer, compression, docker=docker)
        for layer in layers
    ]
    configuration = {
        "architecture": architecture,
        "os": "linux",
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [blob.diff_id for blob in blobs]},
        "history": [{"created_by": f"layer {number}"} for number in range(len(blobs))],
        **({"variant": variant} if variant else {}),
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": types["manifest"],
        "config": add_json(layout, configuration, types["config"]).descriptor(),
        "layers": [blob.descriptor() for blob in blobs],
    }
    made = add_json(layout, manifest, types["manifest"])
    if tag is not None:
        platform = {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}
        name(layout, made, tag, platform=platform)
    return made.digest


def write_index(
    layout: Path, digests: Mapping[str, str], tag: str = "latest", *, docker: bool = False
) -> str:
    """Add an index of images that lie in the layout, by OCI architecture (``arm64/v8`` names the variant)."""
    types = DOCKER if docker else OCI
    entries: list[dict[str, Any]] = []
    for platform, digest in digests.items():
        architecture, _, variant = platform.partition("/")
        entries.append(
            {
                "mediaType": types["manifest"],
                "digest": digest,
                "size": blob_path(layout, digest).stat().st_size,
                "platform": {"architecture": architecture, "os": "linux"}
                | ({"variant": variant} if variant else {}),
            }
        )
    made = add_json(
        layout, {"schemaVersion": 2, "mediaType": types["index"], "manifests": entries}, types["index"]
    )
    name(layout, made, tag)
    return made.digest


def add_layer(layout: Path, layer: Layer | Path, compression: str = "gzip", *, docker: bool = False) -> Blob:
    """Add one layer; handing the blob to several images makes them share it."""
    types = DOCKER if docker else OCI
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        tar = layer if isinstance(layer, Path) else write_layer_tar(layer, Path(scratch) / "layer.tar")
        packed = _compress(tar, compression, Path(scratch) / "packed")
        diff_id, _ = _digest(tar)
        digest, size_bytes = _digest(packed)
        _keep(layout, packed, digest)
    return Blob(types[compression], digest, size_bytes, diff_id)


def add_json(layout: Path, document: Any, media_type: str) -> Blob:
    """Add a JSON document."""
    return add_bytes(layout, json.dumps(document, separators=(",", ":")).encode(), media_type)


def add_bytes(layout: Path, content: bytes, media_type: str) -> Blob:
    """Add any bytes."""
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    path = blob_path(layout, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return Blob(media_type, digest, len(content))


def name(layout: Path, blob: Blob, tag: str, **more: Any) -> None:
    """Name a blob in index.json, in the place of what had that name."""
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    index = layout / "index.json"
    known = json.loads(index.read_text())["manifests"] if index.exists() else []
    kept = [entry for entry in known if entry.get("annotations", {}).get(REF_NAME) != tag]
    entry = blob.descriptor(annotations={REF_NAME: tag}, **more)
    index.write_text(json.dumps({"schemaVersion": 2, "manifests": [*kept, entry]}))


def blob_path(layout: Path, digest: str) -> Path:
    """Where a blob lies."""
    algorithm, _, value = digest.partition(":")
    return layout / "blobs" / algorithm / value


def layout_archive(layout: Path, into: Path, members: Iterable[str] | None = None) -> Path:
    """The layout as one tar (``oci-archive``), index first or in the given order."""
    names = members or ["oci-layout", "index.json", "blobs"]
    with tarfile.open(into, "w") as tar:
        for member in names:
            tar.add(layout / member, member)
    return into


def _compress(tar: Path, compression: str, into: Path) -> Path:
    if compression == "none":
        return tar
    if compression == "zstd":
        subprocess.run(["zstd", "-q", "-3", str(tar), "-o", str(into)], check=True)
        return into
    with (
        tar.open("rb") as source,
        into.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1, mtime=0) as packed,
    ):
        shutil.copyfileobj(source, packed, _CHUNK_BYTES)
    return into


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest(), path.stat().st_size


def _keep(layout: Path, packed: Path, digest: str) -> None:
    path = blob_path(layout, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        shutil.copyfile(packed, path)
