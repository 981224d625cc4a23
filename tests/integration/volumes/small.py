"""Small images, and the least server of a volume: what Stoker's own is compared with."""

import errno
import os
import random
import select
import threading
from pathlib import Path

from stoker.packaging.erofs.image import build_image
from stoker.packaging.erofs.nodes import Node, folder
from stoker.packaging.volumes import fuse_records as fuse

SEED = 20


def missing() -> str:
    """What this host lacks for mounting images and volumes; empty when nothing."""
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    if "erofs" not in known:
        return "this kernel has no EROFS"
    return "" if Path("/dev/fuse").exists() and "fuse" in known else "there is no /dev/fuse"


def content_of(size_bytes: int, seed: int = SEED) -> bytes:
    """Bytes that look like nothing, the same every time."""
    return random.Random(seed).randbytes(size_bytes)


def image_of(files: dict[str, bytes]) -> bytes:
    """An EROFS image with these files in its root folder."""
    root = folder()
    assert root.children is not None
    contents: dict[int, bytes] = {}
    for name, content in files.items():
        node = Node(mode=0o100644, size_bytes=len(content))
        root.children[name.encode()] = node
        contents[id(node)] = content
    built = build_image(root, block_bytes=4096)
    whole = bytearray(built.size_bytes)
    whole[: len(built.head)] = built.head
    for node in built.files:
        whole[node.address : node.address + node.size_bytes] = contents[id(node)]
    return bytes(whole)


class SmallServer:
    """Serves one volume from memory in a thread. While ``stalled`` is set it answers nothing."""

    def __init__(self, device: int, content: bytes, stalled: bool = False) -> None:
        self._device = device
        self._content = content
        self._wake, self._stop = os.pipe()
        self.stalled = threading.Event()
        if stalled:
            self.stalled.set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Die, as a killed server does."""
        os.close(self._stop)
        self._thread.join()
        os.close(self._wake)

    def _run(self) -> None:
        try:
            while self._wake not in (ready := select.select([self._device, self._wake], [], [])[0]):
                if ready and not self.stalled.is_set():
                    self._serve()
                elif self.stalled.is_set() and self._wake in select.select([self._wake], [], [], 0.01)[0]:
                    return
        except OSError as problem:
            if problem.errno not in (errno.ENODEV, errno.ENOENT):  # unmounted; an answer nobody waits for
                raise
        finally:
            os.close(self._device)

    def _serve(self) -> None:
        data = os.read(self._device, fuse.REQUEST_BYTES_MAX)
        request = fuse.parse_request(memoryview(data))
        if request.opcode not in fuse.UNANSWERED:
            os.write(self._device, self._answer(request))

    def _answer(self, request: fuse.FuseRequest) -> bytes:
        match request.opcode:
            case fuse.Opcode.INIT:
                return fuse.answer_init(request)
            case fuse.Opcode.GETATTR:
                return fuse.answer_attributes(request, len(self._content))
            case fuse.Opcode.OPEN:
                return fuse.answer_open(request)
            case fuse.Opcode.READ:
                piece = self._content[request.offset : request.offset + request.size_bytes]
                return fuse.answer_header(request.unique, len(piece)) + piece
            case _:
                return fuse.answer_error(request.unique, errno.ENOSYS)
