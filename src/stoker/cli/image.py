"""``stoker image``: images that are imported instead of pulled from a registry."""

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from stoker.cli.connection import DataOption, admin
from stoker.cli.image_archive import archive_chunks
from stoker.cli.output import age, say, show_json, show_table
from stoker.services.admin import ImportedImage, ImportEvent

images = typer.Typer(
    help="Import, list and remove container images.", no_args_is_help=True, rich_markup_mode=None
)
JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
NameArgument = Annotated[str, typer.Argument(help="NAME[:TAG]")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(images, name="image")


@images.command("import")
def import_image(
    path: Annotated[str, typer.Argument(help="An OCI layout folder, its tar, a docker save archive, or -")],
    name: NameArgument,
    chosen: Annotated[
        str | None, typer.Option("--image", help="Which image of the archive, where it has several.")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an image in; functions name it as local/NAME:TAG."""
    imported = taken_in(path, name, chosen, data, quiet=as_json)
    if as_json:
        show_json(msgspec.to_builtins(imported))
        return
    for architecture, digest in imported.digests.items():
        say(f"{architecture}: {digest}")
    say(f"imported as local/{imported.name}")


@images.command("list")
def list_images(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List imported images."""
    found = admin(data).images()
    if as_json:
        show_json(msgspec.to_builtins(found))
        return
    now = time.time()
    show_table(
        ("IMAGE", "ARCHITECTURE", "DIGEST", "IMPORTED"),
        [
            (f"local/{image.name}", architecture, digest[:19], f"{age(now - image.imported_at_s)} ago")
            for image in found
            for architecture, digest in image.digests.items()
        ],
        empty="no image was imported; 'stoker image import' imports one",
    )


@images.command("inspect")
def inspect_image(name: NameArgument, data: DataOption = None) -> None:
    """Show manifest and configuration as JSON."""
    show_json(msgspec.json.decode(msgspec.json.encode(admin(data).image(name))))


@images.command("remove")
def remove_images(
    names: Annotated[list[str], typer.Argument(help="NAME[:TAG] ...")], data: DataOption = None
) -> None:
    """Remove names; functions that were made of an image keep it."""
    for name in names:
        admin(data).remove_image(name)
        say(f"removed {name}")


def taken_in(path: str, name: str, chosen: str | None, data: Path | None, *, quiet: bool) -> ImportedImage:
    """Send an archive to the service of this host; a terminal sees how far it is."""
    chunks, total_bytes = archive_chunks(path)
    with _shown_progress(name, total_bytes, quiet=quiet) as (sent, note):
        return admin(data).import_image(_counted(chunks, sent), name, chosen, note)


def _counted(chunks: Iterator[bytes], sent: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        sent(len(chunk))
        if chunk:
            yield chunk


@contextlib.contextmanager
def _shown_progress(
    name: str, total_bytes: int | None, *, quiet: bool
) -> Generator[tuple[Callable[[int], None], Callable[[ImportEvent], None]]]:
    """What to call with bytes that were sent, and with events of the service."""
    if quiet or not sys.stderr.isatty():
        yield (lambda _: None), (lambda _: None)
        return
    with _bars() as bars:
        sending = bars.add_task(f"sending {name}", total=total_bytes)
        working = bars.add_task("", total=None, visible=False)

        def note(event: ImportEvent) -> None:
            if event.progress is not None and event.progress.phase != "receiving":
                total = event.progress.total_bytes or None
                bars.update(
                    working,
                    description=event.progress.phase,
                    completed=event.progress.done_bytes,
                    total=total,
                    visible=True,
                )

        yield (lambda size_bytes: bars.advance(sending, size_bytes)), note


def _bars() -> Any:
    # Imported late: only a terminal sees it, and rich takes longer to load than typer.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
