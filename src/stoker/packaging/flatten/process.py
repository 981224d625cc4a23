"""The helper process that reads the hostile layers of one image: opens nothing, ends with descriptor 0.

Started as ``python -m stoker.packaging.flatten.process``; speaks ``protocol``.
"""

import mmap
import os
import queue
import socket
import sys
import threading

import msgspec

from stoker.packaging.chunks.sealing import CHUNK_BYTES, SALT_BYTES, seal_chunk
from stoker.packaging.confinement import confine_flattener, step_back
from stoker.packaging.erofs.records import NotRepresentable
from stoker.packaging.flatten import limits, protocol
from stoker.packaging.flatten.blobs import uncompressed
from stoker.packaging.flatten.image import ImageWriter
from stoker.packaging.flatten.limits import LayerRefused, invalid
from stoker.packaging.flatten.sealers import Sealers
from stoker.packaging.flatten.writing import ChunkWriter

NICENESS = 5
"""Behind functions and zip deployments: an image takes its time."""
_DESCRIPTORS_MAX = 2
_STACK_BYTES = 512 * 1024
_TELL_EVERY_BYTES = 8 * 1024**2

_decode = msgspec.msgpack.Decoder(protocol.Request).decode
_encode = msgspec.msgpack.encode


def main() -> None:
    """Flatten one image, or say why not."""
    control = socket.socket(fileno=0)
    step_back(NICENESS)
    seal_chunk(b"x", bytes(SALT_BYTES), bytearray(CHUNK_BYTES))
    "a".encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    missing = confine_flattener(limits.UNCOMPRESSED_MAX_BYTES)
    threading.stack_size(_STACK_BYTES)
    control.send(_encode(protocol.Ready(missing)))
    _Job(control).run()


class _Job:
    """The image of this process. The thread that reads requests also takes back slots."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._sending = threading.Lock()
        self._requests: queue.Queue[tuple[protocol.Request, list[int]]] = queue.Queue(limits.LAYERS_MAX + 2)
        self._sealers: Sealers | None = None
        self._unsaid_bytes = 0

    def run(self) -> None:
        try:
            begin, (slots, scratch) = self._receive()
            assert isinstance(begin, protocol.Begin)
            room = memoryview(mmap.mmap(slots, protocol.SLOTS * CHUNK_BYTES))
            self._sealers = Sealers(room, begin.salt, self._send_chunks, self._broke)
            threading.Thread(target=self._listen, daemon=True).start()
            self._flatten(ImageWriter(self._chunk_writer(), block_bytes=begin.block_bytes), scratch)
        except (LayerRefused, NotRepresentable) as problem:
            refused = problem if isinstance(problem, LayerRefused) else invalid(str(problem))
            self._send(protocol.Refused(refused.kind, refused.why[: protocol.WHY_MAX]))
        except MemoryError:
            self._send(protocol.Refused("too_big", "the image needs too much memory"))
        except OSError as problem:
            self._broke(problem)

    def _chunk_writer(self) -> ChunkWriter:
        assert self._sealers is not None
        return ChunkWriter(self._sealers.take, self._sealers.buffer())

    def _flatten(self, image: ImageWriter, scratch: int) -> None:
        assert self._sealers is not None
        room_bytes = limits.UNCOMPRESSED_MAX_BYTES
        while True:
            request, descriptors = self._requests.get()
            if isinstance(request, protocol.Finish):
                finished = image.finish(request.user)
                self._sealers.drain()
                self._send(protocol.Flattened(finished.size_bytes, finished.files, finished.user))
                return
            assert isinstance(request, protocol.Layer)
            room_bytes -= self._layer(image, request, descriptors[0], scratch, room_bytes)

    def _layer(
        self, image: ImageWriter, layer: protocol.Layer, blob: int, scratch: int, room_bytes: int
    ) -> int:
        tar, size_bytes = uncompressed(
            blob,
            scratch,
            compression=layer.compression,
            digest=layer.digest,
            diff_id=layer.diff_id,
            room_bytes=room_bytes,
            tell=self._tell,
        )
        image.add_layer(tar, size_bytes)
        assert self._sealers is not None
        self._sealers.drain()
        os.close(blob)
        os.ftruncate(scratch, 0)
        self._send(protocol.Read(self._unsaid_bytes))
        self._unsaid_bytes = 0
        self._send(protocol.LayerDone())
        return size_bytes

    def _tell(self, size_bytes: int) -> None:
        self._unsaid_bytes += size_bytes
        if self._unsaid_bytes >= _TELL_EVERY_BYTES:
            self._send(protocol.Read(self._unsaid_bytes))
            self._unsaid_bytes = 0

    def _listen(self) -> None:
        try:
            assert self._sealers is not None
            while True:
                request, descriptors = self._receive()
                if isinstance(request, protocol.Taken):
                    self._sealers.release(request.slots)
                else:
                    self._requests.put_nowait((request, descriptors))
        except BaseException as problem:
            self._broke(problem)
            raise

    def _receive(self) -> tuple[protocol.Request, list[int]]:
        message, descriptors, _, _ = socket.recv_fds(
            self._control, protocol.MESSAGE_MAX_BYTES, _DESCRIPTORS_MAX
        )
        if not message:
            # The service is gone, or has given the image up.
            os._exit(0)
        return _decode(message), list(descriptors)

    def _send_chunks(self, chunks: list[protocol.Chunk]) -> None:
        self._send(protocol.Chunks(chunks))

    def _send(self, answer: protocol.Answer) -> None:
        with self._sending:
            self._control.send(_encode(answer))

    def _broke(self, problem: BaseException) -> None:
        """Say so and end: no other thread has anything left to do."""
        try:
            number = problem.errno if isinstance(problem, OSError) else None
            self._send(protocol.Broke(str(problem)[: protocol.WHY_MAX] or type(problem).__name__, number))
        finally:
            os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
