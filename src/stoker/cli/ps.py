"""``stoker ps``: every sandbox with its state, function, age and memory."""

import time
from typing import Annotated

import msgspec
import typer

from stoker.cli.connection import DataOption, admin
from stoker.cli.output import age, show_json, show_table, size
from stoker.services.worker import SandboxStatus

LAYERS = (
    ("guest OS", "guest_os"),
    ("kernel", "kernel"),
    ("VMM pid", "vmm_pid"),
    ("jail", "jail"),
    ("cgroup", "cgroup"),
    ("seccomp", "seccomp"),
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ps", help="List the sandboxes of this host.")(ps)


def ps(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="What stands around each.")] = False,
) -> None:
    """List the sandboxes of this host."""
    sandboxes = admin(data).sandboxes()
    if as_json:
        show_json(msgspec.to_builtins(sandboxes))
        return
    if layers:
        _show_layers(sandboxes)
        return
    now = time.time()
    show_table(
        ("SANDBOX", "STATE", "AGE", "USED", "INVOCATIONS", "MEMORY", "FUNCTION"),
        [
            (
                box.sandbox_id[:12],
                box.state,
                age(now - box.created_at_s),
                f"{age(now - box.last_used_at_s)} ago" if box.invocations else "never",
                str(box.invocations),
                f"{size(box.memory_used_bytes)} / {box.memory_mb} MB",
                box.function_arn.partition(":function:")[2] or box.function_arn,
            )
            for box in sandboxes
        ],
        empty="no sandbox; one is made when a function is invoked",
    )


def _show_layers(sandboxes: list[SandboxStatus]) -> None:
    """From the function outwards."""
    rows = [
        (box.sandbox_id[:12] if title == "function" else "", title, text)
        for box in sandboxes
        for title, text in (
            ("function", box.function_arn.partition(":function:")[2] or box.function_arn),
            ("memory", f"{size(box.memory_used_bytes)} / {box.memory_mb} MB"),
            *(
                (title, box.layers.get(key, "none" if key == "vmm_pid" else "not known"))
                for title, key in LAYERS
            ),
        )
    ]
    show_table(("SANDBOX", "LAYER", ""), rows, empty="no sandbox; one is made when a function is invoked")
