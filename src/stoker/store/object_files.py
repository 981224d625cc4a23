"""New files that objects are downloaded into: whole, or gone."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def new_file(file: Path) -> Generator[int]:
    """A descriptor of a new file, mode 0600, which goes when the block fails.

    Raises:
        OSError: there is such a file already, or it cannot be made.
    """
    descriptor = os.open(file, NEW_FLAGS, 0o600)
    try:
        yield descriptor
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """Write everything."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
