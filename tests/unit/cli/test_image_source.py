"""What ``stoker deploy`` takes for an image, and what for source."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
import typer

from stoker.cli.image_source import checked_source, is_image_archive, is_image_name, named_after


@pytest.mark.parametrize(
    "given", ["registry.example.com/team/app:1", "127.0.0.1:5000/app", "localhost/app", "local/app:2"]
)
def test_names_of_images(given: str) -> None:
    assert is_image_name(given)
    assert checked_source(given) is None


@pytest.mark.parametrize(
    "given", ["app", "app:1", "./app", "../app", "team/app", "/srv/app", "a.zip", "local/"]
)
def test_what_is_no_name_of_an_image(given: str) -> None:
    assert not is_image_name(given)


def test_what_is_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.app" / "src").mkdir(parents=True)
    assert checked_source("my.app/src") == Path("my.app/src")
    with pytest.raises(typer.BadParameter, match="does not exist, and is not the name of an image"):
        checked_source("elsewhere")


def test_archives(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("oci-layout"))
    files = {"a.tar": stream.getvalue(), "b.tgz": gzip.compress(stream.getvalue())}
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as made:
        made.writestr("x", "y")
    for name, content in {**files, "c.zip": zipped.getvalue(), "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        assert is_image_archive(tmp_path / name) == (name in files), name
    assert not is_image_archive(tmp_path)
    (tmp_path / "oci-layout").touch()
    (tmp_path / "index.json").touch()
    assert is_image_archive(tmp_path)


def test_names_of_functions(tmp_path: Path) -> None:
    assert named_after("registry.example.com:5000/team/app:1", None) == "app"
    assert named_after("local/app@sha256:00", None) == "app"
    for name in ("fn.zip", "fn.tar", "fn.tar.gz", "fn.tgz", "fn.oci"):
        (tmp_path / name).touch()
        assert named_after(name, tmp_path / name) == "fn"
    assert named_after("x", tmp_path) == tmp_path.name
