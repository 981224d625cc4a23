"""A progress bar for what boto3 uploads, fed by the bytes that really left."""

import contextlib
import io
from collections.abc import Generator
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from stoker.cli.output import errors

UPLOADS = ("CreateFunction", "UpdateFunctionCode")


@contextlib.contextmanager
def upload_progress(service: Any, label: str, *, quiet: bool) -> Generator[None]:
    """Show a bar on standard error while ``service`` sends code inside this block."""
    if quiet or not errors.is_terminal:
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:

        def watch(request: Any, **_: Any) -> None:
            if isinstance(request.body, bytes):
                request.body = _Counted(request.body, progress, label)

        for operation in UPLOADS:
            service.meta.events.register(f"before-send.lambda.{operation}", watch)
        try:
            yield
        finally:
            for operation in UPLOADS:
                service.meta.events.unregister(f"before-send.lambda.{operation}", watch)


class _Counted(io.BytesIO):
    def __init__(self, body: bytes, progress: Progress, label: str) -> None:
        super().__init__(body)
        self._progress = progress
        self._task = progress.add_task(label, total=len(body))

    def __len__(self) -> int:
        return self.getbuffer().nbytes

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        self._progress.advance(self._task, len(chunk))
        return chunk
