"""The kit that writes test images: the same input gives the same bytes, and what it writes is what it says."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

from tests.images.layers import Device, Fifo, File, Folder, Hardlink, Symlink, layer_tar
from tests.images.layout import add_layer, blob_path, layout_archive, write_image, write_index

LAYER = {
    "etc": Folder(),
    "etc/motd": "hello",
    "bin/tool": File(b"\x7fELF", mode=0o755, uid=7, gid=8, xattrs={"user.note": "x"}),
    "bin/link": Symlink("tool"),
    "bin/again": Hardlink("bin/tool"),
    "dev/null": Device(1, 3),
    "run/pipe": Fifo(),
    "etc/.wh.passwd": b"",
}


def _json(layout: Path, digest: str) -> dict:
    return json.loads(blob_path(layout, digest).read_bytes())


def test_layer_holds_what_the_dictionary_says() -> None:
    with tarfile.open(fileobj=io.BytesIO(layer_tar(LAYER))) as tar:
        members = {member.name: member for member in tar}
        assert list(members) == list(LAYER)
        assert members["bin/tool"].pax_headers["SCHILY.xattr.user.note"] == "x"
        assert (members["bin/tool"].mode, members["bin/tool"].uid) == (0o755, 7)
        assert members["bin/again"].islnk()
        assert members["dev/null"].ischr()
        assert members["run/pipe"].isfifo()
        content = tar.extractfile("etc/motd")
        assert content is not None
        assert content.read() == b"hello"


def test_same_input_same_digest(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    config = {"Cmd": ["app.handler"]}
    assert write_image(first, [LAYER], config) == write_image(second, [LAYER], config)


def test_blobs_are_what_their_digests_say(tmp_path: Path) -> None:
    digest = write_image(tmp_path, [LAYER, {"a": "b"}], {"Env": ["A=1"], "User": "1000"})
    manifest = _json(tmp_path, digest)
    config = _json(tmp_path, manifest["config"]["digest"])
    for layer, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
        content = blob_path(tmp_path, layer["digest"]).read_bytes()
        assert len(content) == layer["size"]
        assert "sha256:" + hashlib.sha256(content).hexdigest() == layer["digest"]
        assert "sha256:" + hashlib.sha256(gzip.decompress(content)).hexdigest() == diff_id
    assert config["config"] == {"Env": ["A=1"], "User": "1000"}


def test_index_names_every_architecture_and_layers_are_shared(tmp_path: Path) -> None:
    base = add_layer(tmp_path, LAYER)
    by_platform = {
        "amd64": write_image(tmp_path, [base, {"arch": "amd64"}], tag=None),
        "arm64/v8": write_image(
            tmp_path, [base, {"arch": "arm64"}], tag=None, architecture="arm64", variant="v8"
        ),
    }
    index = _json(tmp_path, write_index(tmp_path, by_platform, "multi"))
    assert [entry["platform"] for entry in index["manifests"]] == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux", "variant": "v8"},
    ]
    assert (
        _json(tmp_path, by_platform["amd64"])["layers"][0]
        == _json(tmp_path, by_platform["arm64/v8"])["layers"][0]
    )
    named = json.loads((tmp_path / "index.json").read_text())["manifests"]
    assert [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in named] == ["multi"]


def test_archive_holds_the_layout(tmp_path: Path) -> None:
    digest = write_image(tmp_path / "layout", [{"a": "b"}])
    with tarfile.open(layout_archive(tmp_path / "layout", tmp_path / "image.tar")) as tar:
        names = tar.getnames()
    assert {"oci-layout", "index.json", f"blobs/sha256/{digest.removeprefix('sha256:')}"} <= set(names)
