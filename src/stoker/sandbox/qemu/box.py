"""The folder with one VM's files: its block devices, and the sockets of its APIs. Blocking."""

import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from stoker.sandbox.guest.contract import Place
from stoker.sandbox.qemu.command import GUEST_INSIDE, ROOT_FILE, file_name

EMPTY_BYTES = 4 << 30
"""The size of a place without content, all of it a hole: an image that comes later is written into it."""

LISTEN_BACKLOG = 64


class Box:
    """``devices`` is what the VM's sandbox sees; the sockets lie beside it, for this process alone."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.devices = home / "devices"
        home.mkdir(mode=0o700)
        self.devices.mkdir(mode=0o755)
        self.devices.chmod(0o755)
        self.filled: set[Place] = set()

    def furnish(self, images: Mapping[Place, Path]) -> None:
        """Link images in; without one the root is the guest's own, and every other place an empty file."""
        for place in Place:
            target = self.devices / file_name(place)
            if place in images:
                os.link(images[place], target)
                self.filled.add(place)
                continue
            if place is Place.ROOT:  # the guest's own; it may be another user's file, which cannot be linked
                target.symlink_to(f"{GUEST_INSIDE}/{ROOT_FILE}")
                continue
            with target.open("wb") as file:
                file.truncate(EMPTY_BYTES)
            target.chmod(0o644)

    def fill(self, place: Place, image: Path) -> None:
        """Write an image into a place that the VM has open already, and has not read yet."""
        with image.open("rb") as source, (self.devices / file_name(place)).open("r+b") as target:
            size, done = os.fstat(source.fileno()).st_size, 0
            while done < size:
                done += os.sendfile(target.fileno(), source.fileno(), done, size - done)
        self.filled.add(place)

    def listen(self, name: str) -> socket.socket:
        """A listening Unix socket in the folder; ``connect`` reaches it."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        folder = os.open(self.home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # by the descriptor: the whole path may be longer than an address can be
            listening.bind(f"/proc/self/fd/{folder}/{name}")
        finally:
            os.close(folder)
        listening.listen(LISTEN_BACKLOG)
        return listening

    def connect(self, name: str) -> socket.socket:
        """Raises OSError when nobody listens, or too many wait."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        folder = os.open(self.home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connected.connect(f"/proc/self/fd/{folder}/{name}")
        except OSError:
            connected.close()
            raise
        finally:
            os.close(folder)
        return connected

    def remove(self) -> None:
        """Everything; idempotent."""
        shutil.rmtree(self.home, ignore_errors=True)
