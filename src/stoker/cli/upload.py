"""A progress bar for what boto3 uploads, fed by the bytes that really left."""

import contextlib
import io
import sys
from collections.abc import Generator
from typing import Any, Protocol

UPLOADS = ("CreateFunction", "UpdateFunctionCode")


class Bar(Protocol):
    """What is needed of rich's Progress."""

    def add_task(self, description: str, *, total: float | None) -> Any: ...

    def advance(self, task_id: Any, advance: float = 1, /) -> None: ...


@contextlib.contextmanager
def upload_progress(service: Any, label: str, *, quiet: bool) -> Generator[None]:
    """Show a bar on standard error while ``service`` sends code inside this block."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    with _progress() as progress:

        def watch(request: Any, **_: Any) -> None:
            if isinstance(request.body, bytes):
                request.body = CountedBody(request.body, progress, label)

        for operation in UPLOADS:
            service.meta.events.register(f"before-send.lambda.{operation}", watch)
        try:
            yield
        finally:
            for operation in UPLOADS:
                service.meta.events.unregister(f"before-send.lambda.{operation}", watch)


class CountedBody(io.BytesIO):
    """A request's body that advances a bar as it is read."""

    def __init__(self, body: bytes, progress: Bar, label: str) -> None:
        super().__init__(body)
        self._progress = progress
        self._task = progress.add_task(label, total=len(body))

    def __len__(self) -> int:
        return self.getbuffer().nbytes

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        self._progress.advance(self._task, len(chunk))
        return chunk


def _progress() -> Any:
    # Imported late: only a terminal sees it, and rich takes longer to load than typer.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
