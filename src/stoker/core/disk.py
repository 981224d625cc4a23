"""Tells a disk without room, and a quota that is used up, from whatever else goes wrong. Touches no disk."""

import errno
from typing import Final

from stoker.core.errors import StokerError

_WORDS: Final = {errno.ENOSPC: "no space is left on the disk", errno.EDQUOT: "the disk quota is used up"}


class DiskFull(StokerError):
    """This host has no room for what was to be written; ``why`` names no path."""

    def __init__(self, why: str, where: str = "") -> None:
        super().__init__(f"{why}: {where}" if where else why)
        self.why = why


def disk_full(number: int | None) -> DiskFull | None:
    """What an errno says of the disk, if that is that it is full."""
    return DiskFull(_WORDS[number]) if number in _WORDS else None
