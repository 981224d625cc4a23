"""Manifests, indexes and configurations: hostile JSON in, checked records out. No I/O.

The forms are those of the OCI image specification 1.1 and of Docker's image manifest version 2, schema 2.
"""

import hashlib
from typing import Annotated, Any, Final, TypeVar

import msgspec

from stoker.packaging.oci.references import Reference, is_digest
from stoker.packaging.oci.source import Descriptor, ImageManifest, Layer
from stoker.services.images import ImageRefused

T = TypeVar("T")

MANIFEST_MAX_BYTES: Final = 4 * 1024**2
"""What the distribution specification asks registries to accept; also for an index and a configuration."""
LAYERS_MAX: Final = 128
INDEX_ENTRIES_MAX: Final = 1000
INDEX_DEPTH_MAX: Final = 2
LAYERS_MAX_BYTES: Final = 10 * 1024**3
"""An image is at most 10 GB uncompressed (AWS); more than that compressed cannot be right."""

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"

MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
ACCEPTED: Final = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)

COMPRESSIONS: Final = {
    OCI_LAYER: "none",
    f"{OCI_LAYER}+gzip": "gzip",
    f"{OCI_LAYER}+zstd": "zstd",
    DOCKER_LAYER: "none",
    f"{DOCKER_LAYER}.gzip": "gzip",
}
_ELSEWHERE = ("nondistributable", "foreign")
"""In the media types of layers whose bytes lie at addresses that the manifest names."""

PLATFORMS: Final = {"x86_64": "amd64", "arm64": "arm64"}
"""Lambda's architectures as OCI names them."""
_PLAIN_VARIANTS: Final = {"amd64": ("", "v1"), "arm64": ("", "v8")}

_SizeBytes = Annotated[int, msgspec.Meta(ge=0, le=LAYERS_MAX_BYTES)]
_Text = Annotated[str, msgspec.Meta(max_length=4096)]


class _Platform(msgspec.Struct, frozen=True):
    architecture: _Text = ""
    os: _Text = ""
    variant: _Text | None = None


class _Entry(msgspec.Struct, frozen=True, rename={"media_type": "mediaType"}):
    """A descriptor as manifests and indexes have it. Its ``urls`` are never followed."""

    digest: _Text
    size: _SizeBytes
    media_type: _Text = ""
    platform: _Platform | None = None
    annotations: dict[str, str] | None = None


class _Manifest(
    msgspec.Struct, frozen=True, rename={"schema_version": "schemaVersion", "media_type": "mediaType"}
):
    schema_version: int
    config: _Entry
    layers: Annotated[list[_Entry], msgspec.Meta(max_length=LAYERS_MAX)]
    media_type: _Text | None = None


class _Index(msgspec.Struct, frozen=True, rename={"media_type": "mediaType"}):
    manifests: Annotated[list[_Entry], msgspec.Meta(max_length=INDEX_ENTRIES_MAX)]
    media_type: _Text | None = None


class _RootFs(msgspec.Struct, frozen=True):
    diff_ids: Annotated[list[_Text], msgspec.Meta(max_length=LAYERS_MAX)]


class _Configuration(msgspec.Struct, frozen=True):
    rootfs: _RootFs
    architecture: _Text = ""
    os: _Text = ""


class _Kind(
    msgspec.Struct, frozen=True, rename={"schema_version": "schemaVersion", "media_type": "mediaType"}
):
    """What tells one document from another."""

    schema_version: Any = None
    media_type: Any = None
    manifests: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    config: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    """Empty when they are not there."""


class IndexEntry(msgspec.Struct, frozen=True):
    """What an index names."""

    blob: Descriptor
    architecture: str
    """OCI's; empty where the index does not say."""
    annotations: dict[str, str]


class ManifestParts(msgspec.Struct, frozen=True):
    """A manifest whose form is right; its configuration has yet to be read."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


def digest_of(content: bytes) -> str:
    """The digest that names these bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def media_type_of(content: bytes, declared: str | None) -> str:
    """The media type of a manifest or index, from the document and from how it was labelled.

    Raises:
        ImageRefused: ``media_type`` for what is no image, or when both disagree; ``invalid``.
    """
    kind = _decoded(content, _Kind, "manifest")
    declared = (declared or "").partition(";")[0].strip() or None
    stated = kind.media_type if isinstance(kind.media_type, str) else None
    if kind.schema_version == 1:
        raise ImageRefused("media_type", "Docker's image manifest version 2, schema 1 is not supported")
    if stated and declared in ACCEPTED and stated != declared:
        raise ImageRefused("media_type", f"the manifest says {shown(stated)} and came as {declared}")
    media_type = stated or (declared if declared in ACCEPTED else None)
    if media_type is None:
        # A layout's index.json and OCI manifests need not say what they are.
        media_type = OCI_INDEX if bytes(kind.manifests) else OCI_MANIFEST
    if media_type not in ACCEPTED:
        raise ImageRefused("media_type", f"{shown(media_type)} is not the manifest of an image")
    # A document that is both would be an index to one client and an image to another (CVE-2021-41190).
    if (media_type in INDEXES and bytes(kind.config)) or (media_type in MANIFESTS and bytes(kind.manifests)):
        raise ImageRefused("invalid", "the manifest is both an index and an image")
    return media_type


def read_index(content: bytes) -> list[IndexEntry]:
    """The images that an index names, without attestations and what else is no image.

    Raises:
        ImageRefused: ``invalid``.
    """
    entries = _decoded(content, _Index, "index").manifests
    return [
        IndexEntry(_descriptor(entry), (entry.platform or _Platform()).architecture, entry.annotations or {})
        for entry in sorted(entries, key=_is_variant)
        if not _is_attestation(entry) and _runs_linux(entry)
    ]


def check_is_manifest(media_type: str) -> None:
    """Raises ImageRefused (``invalid``) for an index: it was reached through too many others."""
    if media_type not in MANIFESTS:
        raise ImageRefused("invalid", f"an index of indexes deeper than {INDEX_DEPTH_MAX}")


def choose(entries: list[IndexEntry], architecture: str | None) -> IndexEntry:
    """The entry for one of Lambda's architectures; one that does not say where nothing else fits.

    Raises:
        ImageRefused: ``architecture``; ``invalid`` when an index is no answer at all.
    """
    if architecture is None:
        raise ImageRefused("invalid", "the digest names an index of images, not an image")
    wanted = PLATFORMS[architecture]
    fitting = [entry for entry in entries if entry.architecture == wanted]
    fitting += [entry for entry in entries if not entry.architecture]
    if not fitting:
        offered = ", ".join(sorted({entry.architecture for entry in entries})[:20]) or "nothing"
        raise ImageRefused(
            "architecture", f"there is no linux/{wanted} image; the index has {shown(offered)}"
        )
    return fitting[0]


def read_manifest(content: bytes) -> ManifestParts:
    """The configuration and layers that a manifest names.

    Raises:
        ImageRefused: ``media_type``, ``too_big`` or ``invalid``.
    """
    manifest = _decoded(content, _Manifest, "manifest")
    if manifest.schema_version != 2:
        raise ImageRefused(
            "media_type", f"a manifest of schema version {manifest.schema_version} is not supported"
        )
    config = _descriptor(manifest.config)
    if config.media_type not in CONFIGS:
        raise ImageRefused("media_type", f"{shown(config.media_type)} is not the configuration of an image")
    if config.size_bytes > MANIFEST_MAX_BYTES:
        raise ImageRefused("too_big", f"the image's configuration has {config.size_bytes} bytes")
    layers = tuple(_layer_descriptor(entry) for entry in manifest.layers)
    total_bytes = sum(layer.size_bytes for layer in layers)
    if total_bytes > LAYERS_MAX_BYTES:
        raise ImageRefused("too_big", f"the image's layers have {total_bytes} bytes")
    return ManifestParts(config, layers)


def assemble(
    reference: Reference,
    content: bytes,
    parts: ManifestParts,
    config_content: bytes,
    architecture: str | None,
) -> ImageManifest:
    """The whole image, its configuration's digest checked already.

    Raises:
        ImageRefused: ``architecture`` when the image is for another one than asked for; ``invalid``.
    """
    configuration = _decoded(config_content, _Configuration, "configuration")
    if configuration.os != "linux":
        raise ImageRefused("architecture", f"the image is for {shown(configuration.os)!r}, not for linux")
    if architecture is not None and configuration.architecture != PLATFORMS[architecture]:
        raise ImageRefused(
            "architecture",
            f"the image is for linux/{shown(configuration.architecture)}, the function for {architecture}",
        )
    diff_ids = configuration.rootfs.diff_ids
    if len(diff_ids) != len(parts.layers) or not all(is_digest(diff_id) for diff_id in diff_ids):
        raise ImageRefused("invalid", "the image's configuration does not name its manifest's layers")
    return ImageManifest(
        reference=reference,
        content=content,
        config=parts.config,
        config_content=config_content,
        layers=tuple(
            Layer(blob, COMPRESSIONS[blob.media_type], diff_id)
            for blob, diff_id in zip(parts.layers, diff_ids, strict=True)
        ),
    )


def diff_ids_of(config_content: bytes) -> list[str]:
    """The digests of an image's layers as they unpack, lowest first. Raises ImageRefused."""
    return _decoded(config_content, _Configuration, "configuration").rootfs.diff_ids


def write_manifest(config: Descriptor, layers: list[Descriptor]) -> bytes:
    """The OCI manifest of an image that came without one; the same parts give the same bytes."""

    def entry(blob: Descriptor) -> dict[str, object]:
        return {"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size_bytes}

    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": entry(config),
            "layers": [entry(layer) for layer in layers],
        }
    )


def architecture_of(config_content: bytes) -> str:
    """OCI's name of the architecture that an image is for. Raises ImageRefused."""
    return _decoded(config_content, _Configuration, "configuration").architecture


def _layer_descriptor(entry: _Entry) -> Descriptor:
    if any(mark in entry.media_type for mark in _ELSEWHERE):
        raise ImageRefused(
            "media_type", "a layer of the image is kept outside the registry, which is not supported"
        )
    if entry.media_type not in COMPRESSIONS:
        raise ImageRefused("media_type", f"a layer of type {shown(entry.media_type)} is not supported")
    return _descriptor(entry)


def _descriptor(entry: _Entry) -> Descriptor:
    if not is_digest(entry.digest):
        raise ImageRefused("invalid", f"{shown(entry.digest)!r} is not a SHA-256 digest")
    return Descriptor(entry.media_type, entry.digest, entry.size)


def _is_attestation(entry: _Entry) -> bool:
    """BuildKit puts provenance beside images, as manifests of platform unknown/unknown."""
    annotations = entry.annotations or {}
    platform = entry.platform or _Platform()
    return (
        annotations.get("vnd.docker.reference.type") == "attestation-manifest"
        or platform.architecture == "unknown"
        or entry.media_type not in (*ACCEPTED, "")
    )


def _runs_linux(entry: _Entry) -> bool:
    return entry.platform is None or entry.platform.os in ("linux", "")


def _is_variant(entry: _Entry) -> bool:
    """The plain architecture goes before those that ask for more of the processor."""
    platform = entry.platform or _Platform()
    return (platform.variant or "") not in _PLAIN_VARIANTS.get(platform.architecture, ("",))


def _decoded(content: bytes, form: type[T], what: str) -> T:
    if len(content) > MANIFEST_MAX_BYTES:
        raise ImageRefused("too_big", f"the {what} is over {MANIFEST_MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(content, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ImageRefused(
            "invalid", f"the image's {what} is not what it should be: {shown(str(problem))}"
        ) from None


def shown(text: str) -> str:
    """Foreign text for a message: short and printable."""
    return "".join(character if character.isprintable() else "?" for character in text[:200])
