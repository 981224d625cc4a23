"""``stoker up``: reads the settings and hands over to the supervisor. Every setting is a flag."""

import inspect
import os
import socket
import typing
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from stoker.app.configuration import ConfigurationError, listen_address, load_settings
from stoker.app.launch import SECRET_SETTINGS, start_supervised
from stoker.core.configuration import Settings


def register(app: typer.Typer) -> None:
    """Add the command, with one flag for each field of Settings."""

    def up(**flags: Any) -> None:
        file: Path | None = flags.pop("config", None)
        settings = load_settings(file=file, environment=os.environ, flags=flags)
        check_address(settings)
        start_supervised(settings)

    setattr(up, "__signature__", inspect.Signature(parameters()))  # noqa: B010
    up.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters()}
    app.command("up", help="Start Stoker on this host and serve until Ctrl-C.")(up)


def parameters() -> list[inspect.Parameter]:
    """--config, and a flag for each setting that may be seen on a command line."""
    shown = [field for field in msgspec.structs.fields(Settings) if field.name not in SECRET_SETTINGS]
    return [_config_flag(), *(_flag(field) for field in shown)]


def check_address(settings: Settings) -> None:
    """Refuse an address that is taken here, before a supervisor starts a service that fails again and again.

    Raises:
        ConfigurationError: saying so. Other obstacles are the service's to report.
    """
    host, port = listen_address(settings)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as problem:
            raise ConfigurationError(
                f"cannot listen on {settings.listen}: {problem.strerror}; choose another with --listen"
            ) from problem


def _config_flag() -> inspect.Parameter:
    annotation = Annotated[
        Path | None, typer.Option(help="TOML file with these settings.", envvar="STOKER_CONFIG")
    ]
    return _keyword("config", annotation)


def _flag(field: msgspec.structs.FieldInfo) -> inspect.Parameter:
    kind, meta = typing.get_args(field.type)[:2]
    description = (
        f"{meta.description} [default: {field.default}]" if field.default != "" else meta.description
    )
    optional = {bool: bool | None, int: int | None, float: float | None}.get(kind, str | None)
    return _keyword(field.name, Annotated[optional, typer.Option(help=description, show_default=False)])


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
