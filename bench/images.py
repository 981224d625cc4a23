"""Container images, real ones: what a family of ten stores, what one changed line adds, and how a 1 GB image starts
from empty caches, beside downloading and unpacking the same image in the same run.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.figures import Figure, Missing, Options
from bench.functions import metrics, serving
from bench.image_family import FAMILY, FOLDER, Family, family
from bench.percentiles import grown, median
from tests.running import ROLE, RunningStoker

ACTIVE_WITHIN_S = 600
EVENT = b'{"n": 1000}'
READ_BYTES = "stoker_volumes_fetched_bytes_total"
STARTS = 5
UNPACKED = "downloaded and unpacked"
UNIQUE = "unique bytes of the layers"


def measure(_options: Options) -> list[Figure]:
    """Storage first, then starts of the big image."""
    images = family()
    with serving(pool_memory_mb=0) as stoker:
        return [*stored(stoker, images), *started(stoker, images)]


def stored(stoker: RunningStoker, images: Family) -> list[Figure]:
    """Ten images, a big one, and that one with a line changed."""
    for tag in FAMILY:
        take_in(stoker, images, tag)
    ten_bytes = objects_bytes(stoker)
    unique_bytes = sum(
        file.stat().st_size
        for name, file in images.layers.items()
        if name in (*FAMILY, "base", "awslambdaric")
    )
    big_s = take_in(stoker, images, "big")
    big_bytes = objects_bytes(stoker)
    changed_s = take_in(stoker, images, "changed")
    added_bytes = objects_bytes(stoker) - big_bytes
    image_bytes = sum(images.layers[name].stat().st_size for name in ("base", "awslambdaric", "big"))
    return [
        Figure(
            name="images.family.stored",
            value=ten_bytes / 1e6,
            unit="MB",
            n=len(FAMILY),
            yardstick=unique_bytes / 1e6,
            yardstick_name=UNIQUE,
            tolerance=0.02,
            goal="within 5 %",
        ),
        Figure(
            name="images.changed.stored",
            value=added_bytes / 1e6,
            unit="MB",
            n=1,
            yardstick=image_bytes / 1e6,
            yardstick_name="the whole image",
            goal="under 3 %",
        ),
        Figure(name="images.big.import", value=big_s, unit="s", n=1, tolerance=None),
        Figure(
            name="images.changed.import",
            value=changed_s,
            unit="s",
            n=1,
            yardstick=big_s,
            yardstick_name="the first import",
            tolerance=None,
        ),
    ]


def started(stoker: RunningStoker, images: Family) -> list[Figure]:
    """From an empty cache, and again from an empty cache with the profile of that start."""
    client = stoker.client("lambda")
    client.create_function(
        FunctionName="big",
        Role=ROLE,
        PackageType="Image",
        Code={"ImageUri": "local/big:latest"},
        Timeout=60,
        MemorySize=1769,
    )
    client.get_waiter("function_active_v2").wait(
        FunctionName="big", WaiterConfig={"Delay": 1, "MaxAttempts": ACTIVE_WITHIN_S}
    )
    image_bytes = sum(images.layers[name].stat().st_size for name in ("base", "awslambdaric", "big"))
    first: list[tuple[float, float]] = []
    again: list[tuple[float, float]] = []
    for _ in range(STARTS):
        forget_profiles(stoker)
        first.append(cold(stoker))
        again.append(cold(stoker))
    first_ms, again_ms = (median([taken_s * 1000 for taken_s, _ in starts]) for starts in (first, again))
    read_mb = median([read_bytes / 1e6 for _, read_bytes in first])
    unpacked_ms = downloaded_and_unpacked_s(images) * 1000
    rows = (
        ("images.cold.first", first_ms, "ms", unpacked_ms, UNPACKED, "10 times faster"),
        ("images.cold.profiled", again_ms, "ms", first_ms, "the first start", "faster again"),
        ("images.cold.read", read_mb, "MB", image_bytes / 1e6, "the whole image", "under 7 %"),
    )
    return [
        Figure(
            name=name, value=value, unit=unit, n=STARTS, yardstick=yardstick, yardstick_name=what, goal=goal
        )
        for name, value, unit, yardstick, what, goal in rows
    ]


def forget_profiles(stoker: RunningStoker) -> None:
    """As if the image had never been started."""
    for file in (stoker.data / "objects").glob("roots/*/profiles/*/*"):
        file.unlink()


def cold(stoker: RunningStoker) -> tuple[float, float]:
    """Seconds to the first response and bytes fetched, after a restart that empties every cache of ours and
    the host's page cache of the store."""
    stoker.stop()
    drop_page_cache(stoker.data / "objects")
    stoker.start()
    before = metrics(stoker)
    begun_s = time.perf_counter()
    answer = stoker.client("lambda").invoke(FunctionName="big", Payload=EVENT)
    taken_s = time.perf_counter() - begun_s
    body = answer["Payload"].read()
    if "FunctionError" in answer or json.loads(body)["sum"] != sum(range(1000)):
        raise Missing(f"the big image's function failed: {body[:300]!r}")
    time.sleep(2)  # what is read ahead behind the answer counts too
    return taken_s, grown(before, metrics(stoker), READ_BYTES)


def drop_page_cache(folder: Path) -> None:
    """Have the kernel forget the files below ``folder``."""
    for walked, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(walked, name), "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def downloaded_and_unpacked_s(images: Family) -> float:
    """What a host without lazy volumes does first: copy every compressed layer here, then unpack it."""
    layout = one_image(images, "big")
    drop_page_cache(layout)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        begun_s = time.perf_counter()
        manifest = manifest_of(images.layout, "big")
        for layer in manifest["layers"]:
            blob = layout / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")
            copied = shutil.copyfile(blob, Path(folder) / "blob")
            root = Path(folder) / "root"
            root.mkdir(exist_ok=True)
            subprocess.run(["tar", "-C", str(root), "--exclude=./dev/*", "-xzf", str(copied)], check=True)
        return time.perf_counter() - begun_s


def take_in(stoker: RunningStoker, images: Family, tag: str) -> float:
    """Import one image; seconds."""
    command = [sys.executable, "-m", "stoker.cli.main", "image", "import", str(one_image(images, tag))]
    begun_s = time.perf_counter()
    done = subprocess.run(
        [*command, tag, "--data", str(stoker.data)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Missing(f"{tag} could not be imported: {done.stderr.strip()[-500:]}")
    return time.perf_counter() - begun_s


def one_image(images: Family, tag: str) -> Path:
    """A layout of one image; its blobs are links to the family's."""
    layout, manifest = FOLDER / "single" / tag, manifest_of(images.layout, tag)
    if layout.exists():
        return layout
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    index = json.loads((images.layout / "index.json").read_text())
    index["manifests"] = [entry for entry in index["manifests"] if entry["annotations"][REF_NAME] == tag]
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    for blob in (index["manifests"][0], manifest["config"], *manifest["layers"]):
        name = blob["digest"].removeprefix("sha256:")
        os.link(images.layout / "blobs" / "sha256" / name, blobs / name)
    return layout


REF_NAME = "org.opencontainers.image.ref.name"


def manifest_of(layout: Path, tag: str) -> dict[str, Any]:
    """The manifest that a tag names."""
    index = json.loads((layout / "index.json").read_text())
    digest = next(entry["digest"] for entry in index["manifests"] if entry["annotations"][REF_NAME] == tag)
    return json.loads((layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes())


def objects_bytes(stoker: RunningStoker) -> int:
    """What the object store holds."""
    return sum(file.stat().st_size for file in (stoker.data / "objects").rglob("*") if file.is_file())
