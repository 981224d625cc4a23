"""The examples, deployed with the real command on real packages and fed with real pictures and text."""

import base64
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.running import RunningStoker, node_runtime

EXAMPLES = Path(__file__).parents[2] / "examples"
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""JPEG markers that carry a picture's size (ITU T.81, table B.1)."""


def run(stoker: RunningStoker, *arguments: str, stdin: str | None = None) -> str:
    command = [sys.executable, "-m", "stoker.cli.main", *arguments, "--data", str(stoker.data)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def picture_size(image: bytes) -> tuple[str, int, int]:
    """(format, width, height) as the picture's own header says."""
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        assert image[12:16] == b"IHDR"
        assert image.endswith(b"IEND\xae\x42\x60\x82")
        return ("PNG", *struct.unpack(">II", image[16:24]))
    assert image.startswith(b"\xff\xd8")
    assert image.endswith(b"\xff\xd9")
    place = 2
    while image[place + 1] not in START_OF_FRAME:
        assert image[place] == 0xFF
        place += 2 + struct.unpack(">H", image[place + 2 : place + 4])[0]
    height, width = struct.unpack(">HH", image[place + 5 : place + 9])
    return ("JPEG", width, height)


@pytest.fixture(scope="module")
def thumbnail(stoker: RunningStoker) -> str:
    run(stoker, "deploy", str(EXAMPLES / "thumbnail"), "--memory", "512", "--timeout", "30")
    return "thumbnail"


@pytest.mark.parametrize("width", [128, 48])
@pytest.mark.parametrize("name", ["rocket.jpg", "chelsea.png"])
def test_thumbnail(stoker: RunningStoker, thumbnail: str, name: str, width: int) -> None:
    original = (EXAMPLES / "pictures" / name).read_bytes()
    kind, original_width, original_height = picture_size(original)
    event = {"image": base64.b64encode(original).decode(), "width": width}
    answer: dict[str, Any] = json.loads(run(stoker, "invoke", thumbnail, "-", stdin=json.dumps(event)))
    image = base64.b64decode(answer["image"])
    assert answer["original_size"] == [original_width, original_height]
    got_kind, got_width, got_height = picture_size(image)
    assert (got_kind, [got_width, got_height]) == (kind, answer["size"])
    assert max(got_width, got_height) == width
    assert abs(got_height / got_width - original_height / original_width) < 0.02
    assert len(image) < len(original) / 4


def test_thumbnail_of_no_picture(stoker: RunningStoker, thumbnail: str) -> None:
    answer = stoker.invoke(thumbnail, {"image": base64.b64encode(b"no picture").decode()})
    assert answer["errorType"] == "UnidentifiedImageError"


@pytest.mark.skipif(node_runtime() is None or shutil.which("npm") is None, reason="node and npm are not here")
def test_markdown(stoker: RunningStoker) -> None:
    run(stoker, "deploy", str(EXAMPLES / "markdown"))
    event = {"markdown": "# Hello\n\n* one\n* **two**\n"}
    answer = json.loads(run(stoker, "invoke", "markdown", json.dumps(event)))
    assert "<h1>Hello</h1>" in answer["html"]
    assert "<li><strong>two</strong></li>" in answer["html"]
    assert answer["words"] == 6
    assert stoker.invoke("markdown", {})["errorType"] == "TypeError"
