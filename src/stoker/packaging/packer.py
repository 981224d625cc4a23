"""The helper process that reads hostile archives: ``python -m stoker.packaging.packer [FOLDER]``.

Writes below FOLDER only. Speaks ``protocol`` on descriptor 0 and knows nothing but the descriptors it is
handed. Ends with its socket.
"""

import hashlib
import io
import os
import socket
import sys
import zipfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import IO

import msgspec

from stoker.packaging.archive import READ_ERRORS, ArchiveRefused, Plan, read_plan
from stoker.packaging.archive_image import write_image
from stoker.packaging.confinement import allow_cpu_for_a_job, confine, step_back
from stoker.packaging.erofs.records import NotRepresentable
from stoker.packaging.protocol import (
    MESSAGE_MAX_BYTES,
    Answer,
    Broke,
    Hash,
    Hashed,
    Imaged,
    Pack,
    Ready,
    Refused,
    Request,
    Unpack,
    Unpacked,
)
from stoker.packaging.unpack import unpack

DESCRIPTORS_PER_REQUEST = 7
"""An image, the archives of five layers, and what was compiled of them."""
NICENESS = 0
"""As much as anything else on the host: somebody waits for a deployment."""
_WHY_MAX = 500
_CHUNK_BYTES = 1024 * 1024


def main() -> None:
    """Serve one request after another until the other end closes."""
    control = socket.socket(fileno=0)
    step_back(NICENESS)
    _import_everything()
    missing = confine(sys.argv[1] if len(sys.argv) > 1 else None)
    decode = msgspec.msgpack.Decoder(Request).decode
    control.send(msgspec.msgpack.encode(Ready(missing)))
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_MAX_BYTES, DESCRIPTORS_PER_REQUEST)
        if not message:
            return
        try:
            allow_cpu_for_a_job()
            answer = serve(decode(message), descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        control.send(msgspec.msgpack.encode(answer))


def _import_everything() -> None:
    """Pack and unpack something: what the library imports lazily cannot be read once confined."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a", b"a")
    with zipfile.ZipFile(stream) as opened:
        opened.read("a")
    "a".encode("cp437").decode("cp437")


def serve(request: Request, descriptors: list[int]) -> Answer:
    """Do one request; whatever the archive holds, an answer comes back."""
    try:
        match request:
            case Hash():
                return _hash(descriptors[0])
            case Unpack():
                return _unpack(descriptors[0], descriptors[1], request.limit_bytes)
            case Pack():
                return _pack(descriptors[0], descriptors[1:], request.limit_bytes)
    except ArchiveRefused as problem:
        return Refused(problem.kind, problem.why[:_WHY_MAX])
    except MemoryError:
        return Refused("malformed", "needs too much memory")
    except (OSError, NotRepresentable) as problem:
        number = problem.errno if isinstance(problem, OSError) else None
        return Broke(str(problem)[:_WHY_MAX], number)


def _hash(archive: int) -> Hashed:
    digest = hashlib.sha256()
    size_bytes = 0
    while chunk := os.pread(archive, _CHUNK_BYTES, size_bytes):
        digest.update(chunk)
        size_bytes += len(chunk)
    return Hashed(digest.hexdigest(), size_bytes)


def _unpack(archive: int, root: int, limit_bytes: int) -> Unpacked:
    with _planned(archive, limit_bytes) as (opened, plan):
        unpacked_bytes = unpack(opened, plan, root)
    return Unpacked(unpacked_bytes, len(plan.files) + len(plan.links) + len(plan.directories))


def _pack(image: int, archives: list[int], limit_bytes: int) -> Imaged:
    with ExitStack() as stack:
        planned = [stack.enter_context(_planned(archive, limit_bytes)) for archive in archives]
        return Imaged(*write_image(planned, image))


@contextmanager
def _planned(archive: int, limit_bytes: int) -> Generator[tuple[zipfile.ZipFile, Plan]]:
    """An archive whose directory was checked."""
    if os.fstat(archive).st_size == 0:
        raise ArchiveRefused("empty", "no bytes")
    with os.fdopen(os.dup(archive), "rb") as stream, _opened(stream) as opened:
        try:
            plan = read_plan(opened, stream, limit_bytes)
        except (*READ_ERRORS, OSError) as problem:
            raise ArchiveRefused("malformed", str(problem)) from problem
        yield opened, plan


def _opened(stream: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(stream)
    except (*READ_ERRORS, OSError) as problem:
        raise ArchiveRefused("malformed", str(problem)) from problem


if __name__ == "__main__":
    sys.exit(main())
