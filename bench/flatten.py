"""What flattening an image costs a core, beside the hashes and the cipher alone; and the memory that it takes.

The yardstick is what checking a layer and the specification of chunks cost: SHA-256 of the layer; for each chunk
SHA-256 of the plain text (its key), AES-256-CTR, SHA-256 of the cipher text (its name).
"""

import asyncio
import hashlib
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.figures import Figure, Options
from bench.percentiles import median
from stoker.packaging.chunks.sealing import CHUNK_BYTES, SALT_BYTES, seal_chunk
from stoker.packaging.flatten.flattener import Flattening, ReceivedChunk
from tests.images.layers import write_layer_tar

RUNS = 5
FILES, FILE_MEAN_BYTES = 8_000, 40_000
"""As a Python application: many small files, and some big ones."""
BIG_FILES, BIG_FILE_BYTES = 8, 16 * 1024**2
YARDSTICK_CHUNKS = 200
_TICKS = os.sysconf("SC_CLK_TCK")


def measure(options: Options) -> list[Figure]:
    """Both in turns; CPU time of a core, so that it does not matter who else uses this machine."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        tar, content_bytes = _layer(Path(folder))
        digest = f"sha256:{hashlib.sha256(tar.read_bytes()).hexdigest()}"
        rates, yardsticks, peaks = [], [], []
        for _ in range(RUNS):
            yardsticks.append(_yardstick())
            cpu_s, peak_mb = asyncio.run(_flattened(tar, digest, Path(folder)))
            rates.append(content_bytes / 1e6 / cpu_s)
            peaks.append(peak_mb)
    return [
        Figure(
            name="flatten.rate",
            value=median(rates),
            unit="MB/s",
            n=RUNS,
            yardstick=median(yardsticks),
            yardstick_name="SHA-256 of the layer; SHA-256, AES-CTR, SHA-256 of each chunk",
            higher_is_better=True,
            goal="0.7 of it",
        ),
        Figure(name="flatten.memory", value=median(peaks), unit="MB", n=RUNS),
    ]


def _layer(folder: Path) -> tuple[Path, int]:
    chance = random.Random(5)
    noise = chance.randbytes(BIG_FILE_BYTES)
    big = folder / "big"
    big.write_bytes(noise)
    files: dict[str, bytes | Path] = {f"usr/lib/big/{number}": big for number in range(BIG_FILES)}
    total_bytes = BIG_FILES * BIG_FILE_BYTES
    for number in range(FILES):
        size_bytes = min(int(chance.expovariate(1 / FILE_MEAN_BYTES)) + 1, 400_000)
        start = chance.randrange(len(noise) - size_bytes)
        files[f"usr/lib/package{number // 40}/file{number}.py"] = noise[start : start + size_bytes]
        total_bytes += size_bytes
    return write_layer_tar(files, folder / "layer.tar"), total_bytes


def _yardstick() -> float:
    """MB/s of this core at the hashes and the cipher and nothing else."""
    plain, scratch = os.urandom(CHUNK_BYTES), bytearray(CHUNK_BYTES)
    layer = hashlib.sha256()
    started_s = time.process_time()
    for _ in range(YARDSTICK_CHUNKS):
        layer.update(plain)
        seal_chunk(plain, bytes(SALT_BYTES), scratch)
    return YARDSTICK_CHUNKS * CHUNK_BYTES / 1e6 / (time.process_time() - started_s)


async def _flattened(tar: Path, digest: str, folder: Path) -> tuple[float, float]:
    """CPU seconds of the process from its first layer on, and its peak of memory in MB."""

    async def store(chunks: Sequence[ReceivedChunk]) -> None:
        """Nothing is stored: the store has all chunks already."""

    with tar.open("rb") as blob, (folder / "scratch").open("wb+") as scratch:
        async with Flattening(salt=bytes(SALT_BYTES), scratch=scratch.fileno(), store=store) as flattening:
            process = Path(f"/proc/{flattening._process.pid}")
            before_s = _cpu_s(process)
            await flattening.add_layer(blob.fileno(), compression="none", digest=digest, diff_id=digest)
            peak_kb = int((process / "status").read_text().split("VmHWM:")[1].split()[0])
            await flattening.finish("")
            return _cpu_s(process) - before_s, peak_kb / 1000


def _cpu_s(process: Path) -> float:
    user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / _TICKS
