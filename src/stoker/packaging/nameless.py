"""Files without names: gone with their last descriptor, also after a kill."""

import os
import tempfile
from pathlib import Path


def open_nameless(folder: Path) -> int:
    """An empty file on the disk of ``folder``, open for reading and writing; the caller closes it."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        return os.dup(file.fileno())
