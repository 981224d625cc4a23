"""The volume process: ``python -m stoker.packaging.volumes.process CACHE_BYTES``, its socket as descriptor 0.

Holds the plaintext and keys of every image that is mounted, no files, no network; ends with its socket.
"""

import os
import select
import socket
import sys
import time

import msgspec

from stoker.packaging.confinement import confine_server, seal_server, step_back
from stoker.packaging.volumes.records import (
    DESCRIPTORS_PER_MESSAGE,
    MESSAGE_MAX_BYTES,
    Ready,
    decode_order,
    encode,
)
from stoker.packaging.volumes.server import VOLUMES_MAX, VolumeServer

NICENESS = 0
TICK_S = 0.1
IDLE_TICK_S = 1.0
EVENTS_MAX = 64
MEMORY_BESIDE_CACHE_BYTES = 768 * 1024 * 1024
"""Address space: Python, two threads, chunks and answers under way."""

DESCRIPTORS_MAX = VOLUMES_MAX + 256


def main() -> None:
    """Serve until the other end closes."""
    cache_bytes = int(sys.argv[1])
    control = socket.socket(fileno=0)
    step_back(NICENESS)
    missing = confine_server(cache_bytes + MEMORY_BESIDE_CACHE_BYTES, DESCRIPTORS_MAX)
    polled = select.epoll()
    server = VolumeServer(
        control,
        cache_bytes,
        time.monotonic,
        lambda device: polled.register(device, select.EPOLLIN),
        polled.unregister,
    )
    missing += seal_server()
    polled.register(control, select.EPOLLIN)
    polled.register(server.opener.done, select.EPOLLIN)
    control.send(encode(Ready(tuple(missing))))
    _loop(control, server, polled)


def _loop(control: socket.socket, server: VolumeServer, polled: select.epoll) -> None:
    opened, orders = server.opener.done, control.fileno()
    next_tick_s = 0.0
    while True:
        for descriptor, _ in polled.poll(TICK_S if server.is_waiting else IDLE_TICK_S, EVENTS_MAX):
            if descriptor == opened:
                server.opened()
            elif descriptor == orders:
                if not _obey(control, server):
                    return
            else:
                server.serve_device(descriptor)
        now_s = time.monotonic()
        if now_s >= next_tick_s:
            server.tick()
            next_tick_s = now_s + TICK_S


def _obey(control: socket.socket, server: VolumeServer) -> bool:
    """False: the service is gone."""
    message, descriptors, _, _ = socket.recv_fds(
        control, MESSAGE_MAX_BYTES, DESCRIPTORS_PER_MESSAGE, socket.MSG_CMSG_CLOEXEC
    )
    if not message:
        return False
    try:
        order = decode_order(message)
    except msgspec.MsgspecError:
        for descriptor in descriptors:
            os.close(descriptor)
        return False  # not the service: end, so that nobody waits
    server.obey(order, descriptors)
    return True


if __name__ == "__main__":
    main()
