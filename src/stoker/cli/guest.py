"""``stoker guest``: what micro-VMs boot from."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stoker.app.guests import build_guest, built_guests, verified_guest
from stoker.cli.connection import DataOption, data_directory
from stoker.cli.output import say, show_json, show_table, size

guests = typer.Typer(
    help="Build, list and verify what micro-VMs boot from.", no_args_is_help=True, rich_markup_mode=None
)
JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(guests, name="guest")


@guests.command("build")
def build(
    kernel: Annotated[
        str,
        typer.Option(help="A kernel's Debian package or a vmlinux, by path or URL; else apt's cloud kernel."),
    ] = "",
    sha256: Annotated[str, typer.Option(help="What its SHA-256 must be; a URL needs it.")] = "",
    root: Annotated[
        Path | None,
        typer.Option(help="A folder with a root, as mmdebstrap makes it; else this host's interpreters."),
    ] = None,
    data: DataOption = None,
) -> None:
    """Build kernel, initramfs and runtime root; VMs boot them from the next start on."""
    guest = build_guest(
        data_directory(data), kernel=kernel, sha256=sha256, root=root, on_step=lambda step: say(f"{step} ...")
    )
    for name, length in guest.sizes.items():
        say(f"{name}: {size(length)}, sha256 {guest.digests[name]}")
    say(f"guest {guest.version}, kernel of {guest.kernel}")


@guests.command("list")
def list_guests(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the guests of this host."""
    current, found = built_guests(data_directory(data))
    if as_json:
        show_json({"current": current, "guests": msgspec.to_builtins(found)})
        return
    show_table(
        ("GUEST", "", "KERNEL", "SIZE"),
        [
            (
                guest.version,
                "current" if guest.version == current else "",
                guest.kernel,
                size(sum(guest.sizes.values())),
            )
            for guest in found
        ],
        empty="no guest; stoker guest build makes one",
    )


@guests.command("verify")
def verify(
    version: Annotated[str, typer.Argument(help="Else the one that VMs boot.")] = "",
    data: DataOption = None,
) -> None:
    """Compare every byte with what was built, as each start does."""
    say(f"guest {verified_guest(data_directory(data), version).version} is what was built")
