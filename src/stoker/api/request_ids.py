"""Request ids: random UUIDs, made from entropy that is fetched for many at once."""

import os
from typing import Final

BATCH: Final = 256

_VARIANTS: Final = "89ab"


class RequestIds:
    """An endless supply; one for a process, on one thread."""

    def __init__(self) -> None:
        self._digits = ""
        self._left = 0

    def next(self) -> str:
        """A version 4 UUID in its text form."""
        if not self._left:
            self._digits = os.urandom(16 * BATCH).hex()
            self._left = BATCH
        self._left -= 1
        d = self._digits[self._left * 32 : self._left * 32 + 32]
        variant = _VARIANTS[int(d[16], 16) & 3]
        return f"{d[:8]}-{d[8:12]}-4{d[13:16]}-{variant}{d[17:20]}-{d[20:]}"
