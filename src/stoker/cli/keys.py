"""``stoker keys``: the master keys of a running service. Key material is never shown."""

import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from stoker.cli.connection import DataOption, admin
from stoker.cli.output import age, say, show_json, show_table

if TYPE_CHECKING:
    from stoker.services.keys import KeysReport

JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]

keys = typer.Typer(help="The master keys that everything is sealed under.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(keys, name="keys")


@keys.command("list")
def list_keys(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show each key's id and age, and how much is sealed under it."""
    _show(admin(data).keys(), as_json)


@keys.command("rotate")
def rotate(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Make a new master key the active one; everything is sealed again under it in the background."""
    report = admin(data).rotate_keys()
    _show(report, as_json)
    if not as_json:
        say(f"back up {report.source} now; 'stoker keys retire' removes the old keys when nothing needs them")


@keys.command("retire")
def retire(
    data: DataOption = None,
    end_sessions: Annotated[
        bool,
        typer.Option("--end-sessions", help="Do not wait for temporary credentials of the old keys to end."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove every master key but the active one, if nothing is sealed under them any more."""
    _show(admin(data).retire_keys(end_sessions=end_sessions), as_json)


def _show(report: "KeysReport", as_json: bool) -> None:
    if as_json:
        show_json(msgspec.to_builtins(report))
        return
    now_s = time.time()
    show_table(
        ("KEY", "STATE", "AGE", "REPLACED", "SEALED UNDER IT"),
        [
            (
                key.key_id,
                "active" if key.active else "old",
                age(now_s - key.added_at_s),
                "" if key.replaced_at_s is None else f"{age(now_s - key.replaced_at_s)} ago",
                ", ".join(f"{count} {kind}" for kind, count in sorted(key.sealed.items())) or "nothing",
            )
            for key in report.keys
        ],
        empty="no key",
    )
    for key_id, count in report.missing.items():
        say(f"{count} sealed under key {key_id}, which is not in {report.source}: they cannot be opened")
    if report.trouble:
        say(f"sealing again stopped, and is tried every minute: {report.trouble}")
