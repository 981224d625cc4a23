"""Container images of real software for measuring: Debian with Python, packages from the registry of Python
packages, AWS's own runtime client. Made once into an OCI layout and kept for later runs.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from bench.figures import Missing
from tests.images.layers import Folder
from tests.images.layout import Blob, add_layer, write_image
from tests.images.roots import debian_root

FOLDER = Path("/var/tmp/stoker-bench-images")
"""Safe to delete at any time."""
CLIENT = "awslambdaric"
FAMILY = (
    "numpy",
    "pandas",
    "requests",
    "boto3",
    "pillow",
    "lxml",
    "cryptography",
    "sqlalchemy",
    "jinja2",
    "pydantic",
)
BIG = (
    "numpy", "scipy", "pandas", "scikit-learn", "pyarrow", "matplotlib", "statsmodels", "opencv-python-headless", "polars",
)  # fmt: skip
"""With Debian and Python more than 1 GB."""
HANDLER = """
import json
import numpy
def handler(event, context):
    return {"sum": int(numpy.arange(event["n"]).sum()), "changed": %d}
"""
LINES = 2_000
"""Of the application's module, one of which changes."""


class Family(msgspec.Struct, frozen=True):
    """Images in one layout, and what they are made of."""

    layout: Path
    tags: tuple[str, ...]
    layers: dict[str, Path]
    """Every layer's tar, by its name."""


def family() -> Family:
    """Ten images that share their base, a big one, and that one with one line of its application changed."""
    layout, finished = FOLDER / "layout", FOLDER / "finished.json"
    if finished.exists():
        return msgspec.json.decode(finished.read_bytes(), type=Family, dec_hook=lambda kind, text: kind(text))
    shutil.rmtree(FOLDER, ignore_errors=True)
    layout.mkdir(parents=True)
    tars = {"base": debian_root(["python3", "ca-certificates"])}
    for name, packages in {CLIENT: (CLIENT,), "big": BIG, **{one: (one,) for one in FAMILY}}.items():
        tars[name] = _packages(name, packages)
    blobs = {name: add_layer(layout, tar) for name, tar in tars.items()}
    shared = [blobs["base"], blobs[CLIENT]]
    tags = [_image(layout, one, [*shared, blobs[one]], 0) for one in FAMILY]
    tags += [
        _image(layout, tag, [*shared, blobs["big"]], changed)
        for changed, tag in enumerate(("big", "changed"))
    ]
    made = Family(layout, tuple(tags), tars)
    finished.write_bytes(msgspec.json.encode(made, enc_hook=str))
    return made


def application(changed: int) -> dict[str, str | Folder]:
    """The last layer: a handler and a module of many lines."""
    lines = [f"value_{number} = {number}" for number in range(LINES)]
    lines[LINES // 2] += f" + {changed}"
    return {
        "var/task": Folder(),
        "var/task/app.py": HANDLER % changed,
        "var/task/values.py": "\n".join(lines),
    }


def _image(layout: Path, tag: str, layers: list[Blob], changed: int) -> str:
    config = {
        "Entrypoint": ["/usr/bin/python3", "-m", CLIENT],
        "Cmd": ["app.handler"],
        "WorkingDir": "/var/task",
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONPATH=/opt/packages"],
    }
    write_image(layout, [*layers, application(changed)], config, tag=tag)
    return tag


def _packages(name: str, packages: tuple[str, ...]) -> Path:
    """A tar of packages with all that they need, installed below /opt/packages."""
    folder, tar = FOLDER / "installed" / name, FOLDER / f"{name}.tar"
    target = folder / "opt" / "packages"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--target",
        str(target),
        "--only-binary",
        ":all:",
    ]
    done = subprocess.run([*command, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{', '.join(packages)} cannot be had here: {done.stderr.strip()[-300:]}")
    subprocess.run(
        ["tar", "-C", str(folder), "--sort=name", "--owner=0", "--group=0", "-cf", str(tar), "opt"],
        check=True,
    )
    shutil.rmtree(folder)
    return tar
