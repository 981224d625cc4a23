"""What ``stoker deploy`` was given: the name of an image, an archive of one, or source. Asks nobody."""

import re
from pathlib import Path

import typer

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_GZIP = b"\x1f\x8b"
_TAR_AT, _TAR = 257, b"ustar"
_HEAD_BYTES = 512
LOCAL = "local"
"""In the place of a registry's host: imported here."""
_ENDING = re.compile(r"\.(tar\.gz|tgz|tar|oci|zip)$")


def is_image_name(given: str) -> bool:
    """Whether it begins with ``local/`` or a registry's host, as Docker's clients tell them from paths."""
    host, slash, name = given.partition("/")
    if not slash or not name or host in ("", ".", "..", "~"):
        return False
    return host in (LOCAL, "localhost") or any(mark in host for mark in ".:")


def is_image_archive(path: Path) -> bool:
    """Whether it is an OCI layout or a tar; a zip is source, and so is a folder without a layout."""
    if path.is_dir():
        return (path / "oci-layout").is_file() and (path / "index.json").is_file()
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(_ZIP):
        return False
    return head.startswith(_GZIP) or head[_TAR_AT:].startswith(_TAR)


def checked_source(given: str) -> Path | None:
    """The path that was given; None when it is the name of an image.

    Raises:
        typer.BadParameter: it is neither.
    """
    path = Path(given)
    if path.exists():
        return path
    if is_image_name(given):
        return None
    raise typer.BadParameter(
        f"{given!r} does not exist, and is not the name of an image (HOST/NAME:TAG, or local/NAME:TAG)",
        param_hint="'PATH'",
    )


def named_after(given: str, path: Path | None) -> str:
    """What a function of it is called without a name of its own: the folder's, the file's or the image's."""
    if path is not None:
        return Path(_ENDING.sub("", path.resolve().name)).stem
    return given.partition("@")[0].rpartition("/")[2].partition(":")[0]
