"""Manifests, indexes and configurations: what is taken, what is refused and as what."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.packaging.oci import documents
from stoker.packaging.oci.references import parse_reference
from stoker.services.images import ImageRefused
from tests.images.layout import blob_path, write_image, write_index

REFERENCE = parse_reference("r.io/a:1")
DIGEST = "sha256:" + "0f" * 32


def entry(media_type: str = documents.OCI_MANIFEST, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 1, **more}


def manifest(**changes: Any) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "config": entry(documents.OCI_CONFIG),
        "layers": [entry(documents.OCI_LAYER + "+gzip")],
    }
    return json.dumps({**document, **changes}).encode()


def index(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": list(entries)}).encode()


def on(architecture: str, variant: str | None = None, os: str = "linux") -> dict[str, Any]:
    return {"architecture": architecture, "os": os, **({"variant": variant} if variant else {})}


def refusal(function: Any, *arguments: Any) -> str:
    with pytest.raises(ImageRefused) as refused:
        function(*arguments)
    return refused.value.kind


@pytest.mark.parametrize("docker", [False, True])
def test_a_written_image_is_read_whole(tmp_path: Path, docker: bool) -> None:
    digest = write_image(tmp_path, [{"a": "1"}, {"b": "2"}], docker=docker)
    content = blob_path(tmp_path, digest).read_bytes()
    assert documents.media_type_of(content, None) in documents.MANIFESTS
    parts = documents.read_manifest(content)
    config = blob_path(tmp_path, parts.config.digest).read_bytes()
    image = documents.assemble(REFERENCE.at(digest), content, parts, config, "x86_64")
    assert [layer.compression for layer in image.layers] == ["gzip", "gzip"]
    assert image.transfer_bytes == sum(layer.blob.size_bytes for layer in image.layers)
    assert image.digest == digest == documents.digest_of(content)
    assert refusal(documents.assemble, REFERENCE, content, parts, config, "arm64") == "architecture"


def test_an_index_gives_the_architecture_that_lambda_asks_for(tmp_path: Path) -> None:
    amd64 = write_image(tmp_path, [{"a": "1"}], tag=None)
    arm64 = write_image(tmp_path, [{"a": "2"}], tag=None, architecture="arm64", variant="v8")
    digest = write_index(tmp_path, {"arm64/v8": arm64, "amd64": amd64})
    content = blob_path(tmp_path, digest).read_bytes()
    assert documents.media_type_of(content, None) == documents.OCI_INDEX
    entries = documents.read_index(content)
    assert documents.choose(entries, "x86_64").blob.digest == amd64
    assert documents.choose(entries, "arm64").blob.digest == arm64


def test_the_plain_architecture_goes_before_its_variants() -> None:
    found = documents.read_index(
        index(
            entry(platform=on("amd64", "v3")),
            entry(platform=on("amd64"), size=7),
            entry(platform=on("arm64", "v9")),
            entry(platform=on("arm64", "v8"), size=8),
        )
    )
    assert documents.choose(found, "x86_64").blob.size_bytes == 7
    assert documents.choose(found, "arm64").blob.size_bytes == 8


def test_attestations_and_other_systems_are_skipped() -> None:
    found = documents.read_index(
        index(
            entry(platform=on("amd64", os="windows")),
            entry(platform=on("unknown", os="unknown")),
            entry(platform=on("amd64"), annotations={"vnd.docker.reference.type": "attestation-manifest"}),
            entry("application/vnd.cncf.helm.config.v1+json", platform=on("amd64")),
            entry(platform=on("s390x")),
        )
    )
    assert [each.architecture for each in found] == ["s390x"]
    with pytest.raises(ImageRefused, match="s390x") as refused:
        documents.choose(found, "x86_64")
    assert refused.value.kind == "architecture"


@pytest.mark.parametrize(
    ("content", "declared", "kind"),
    [
        (
            b'{"schemaVersion":1,"fsLayers":[]}',
            "application/vnd.docker.distribution.manifest.v1+json",
            "media_type",
        ),
        (manifest(mediaType="application/vnd.oci.artifact.manifest.v1+json"), None, "media_type"),
        (manifest(mediaType=documents.OCI_MANIFEST), documents.DOCKER_MANIFEST, "media_type"),
        (manifest(manifests=[entry()]), None, "invalid"),
        (manifest(mediaType=documents.OCI_MANIFEST, manifests=[entry()]), None, "invalid"),
        (b"not json", None, "invalid"),
        (b"[]", None, "invalid"),
        (b"", documents.OCI_MANIFEST, "invalid"),
        (b"\xff\xfe{}", None, "invalid"),
        (b'{"a":' + b"[" * 100_000, None, "invalid"),
        (b'{"config":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None, "invalid"),
        (b" " * (documents.MANIFEST_MAX_BYTES + 1), None, "too_big"),
    ],
)
def test_what_is_no_manifest(content: bytes, declared: str | None, kind: str) -> None:
    assert refusal(documents.media_type_of, content, declared) == kind


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (manifest(schemaVersion=3), "media_type"),
        (manifest(config=entry("application/vnd.cncf.helm.config.v1+json")), "media_type"),
        (manifest(layers=[entry("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")]), "media_type"),
        (manifest(layers=[entry("application/vnd.oci.image.layer.nondistributable.v1.tar")]), "media_type"),
        (manifest(layers=[entry(documents.OCI_LAYER + "+bzip2")]), "media_type"),
        (manifest(layers=[entry("")]), "media_type"),
        (manifest(layers=[entry(documents.OCI_LAYER, digest="sha256:../../etc/passwd")]), "invalid"),
        (manifest(layers=[entry(documents.OCI_LAYER, digest="md5:00")]), "invalid"),
        (manifest(layers=[entry(documents.OCI_LAYER, size=-1)]), "invalid"),
        (manifest(layers=[entry(documents.OCI_LAYER, size=2**63)]), "invalid"),
        (manifest(layers=[entry(documents.OCI_LAYER, size=1.5)]), "invalid"),
        (manifest(layers=[entry(documents.OCI_LAYER, size=6 * 1024**3)] * 2), "too_big"),
        (manifest(layers=[entry(documents.OCI_LAYER)] * (documents.LAYERS_MAX + 1)), "invalid"),
        (manifest(config=entry(documents.OCI_CONFIG, size=documents.MANIFEST_MAX_BYTES + 1)), "too_big"),
        (manifest(layers="x"), "invalid"),
        (b"{}", "invalid"),
    ],
)
def test_manifests_that_are_refused(content: bytes, kind: str) -> None:
    assert refusal(documents.read_manifest, content) == kind


def test_an_index_is_bounded() -> None:
    assert refusal(documents.read_index, index(*[entry()] * (documents.INDEX_ENTRIES_MAX + 1))) == "invalid"


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"os": "windows", "architecture": "amd64", "rootfs": {"diff_ids": [DIGEST]}}, "architecture"),
        ({"os": "linux", "architecture": "arm64", "rootfs": {"diff_ids": [DIGEST]}}, "architecture"),
        ({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": []}}, "invalid"),
        ({"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": ["sha256:0"]}}, "invalid"),
        ({"os": "linux", "architecture": "amd64"}, "invalid"),
    ],
)
def test_configurations_that_are_refused(config: dict[str, Any], kind: str) -> None:
    content = manifest()
    parts = documents.read_manifest(content)
    assert (
        refusal(documents.assemble, REFERENCE, content, parts, json.dumps(config).encode(), "x86_64") == kind
    )


def test_foreign_text_is_made_fit_for_a_message() -> None:
    config = {"os": "x\n\x1b[31m" + "y" * 1000, "architecture": "amd64", "rootfs": {"diff_ids": [DIGEST]}}
    content = manifest()
    with pytest.raises(ImageRefused) as refused:
        documents.assemble(
            REFERENCE, content, documents.read_manifest(content), json.dumps(config).encode(), None
        )
    assert "\x1b" not in str(refused.value)
    assert len(str(refused.value)) < 300


PIECES = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        2**70,
        1.5,
        "",
        "x",
        documents.OCI_INDEX,
        documents.OCI_MANIFEST,
        documents.OCI_CONFIG,
        DIGEST,
        [],
        {},
        [None],
        [entry()],
        entry(),
        entry(documents.OCI_LAYER),
        {"diff_ids": [DIGEST]},
    ]
)
MEMBERS = st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "rootfs", "os"])


@settings(max_examples=150)
@given(st.dictionaries(MEMBERS, PIECES))
def test_any_json_is_read_or_refused(document: Any) -> None:
    content = json.dumps(document).encode()
    for read in (lambda: documents.media_type_of(content, None), lambda: documents.read_manifest(content),
                 lambda: documents.read_index(content), lambda: documents.architecture_of(content)):  # fmt: skip
        with contextlib.suppress(ImageRefused):
            read()
