"""``stoker deploy``: a folder or a zip becomes a function, or the new code of one."""

import base64
import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stoker.cli.build import BuildError, BuildPlan, build, detect
from stoker.cli.connection import DataOption, account, admin, client, uses_environment
from stoker.cli.function_urls import open_url
from stoker.cli.output import show_json, size
from stoker.cli.source import check_archive
from stoker.cli.upload import upload_progress

DEFAULT_ROLE = "arn:aws:iam::{account}:role/stoker"
NAME = re.compile(r"[a-zA-Z0-9-_]{1,64}")
VARIABLE = re.compile(r"[a-zA-Z][a-zA-Z0-9_]+")
"""Lambda's patterns; a name that does not match is refused before anything is built."""
POLL = {"Delay": 1, "MaxAttempts": 300}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("deploy", help="Make a function of a folder or a zip file, or update it.")(deploy)


def deploy(
    path: Annotated[Path, typer.Argument(help="Folder or zip file.", exists=True)],
    name: Annotated[str | None, typer.Option(help="Function name; default: the folder's.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Default: what the folder's files say.")] = None,
    handler: Annotated[str | None, typer.Option(help="Default: what the folder's files say.")] = None,
    memory: Annotated[int | None, typer.Option(help="Memory in MB.", min=128, max=10_240)] = None,
    timeout: Annotated[int | None, typer.Option(help="Time-out in seconds.", min=1, max=900)] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Environment variable; repeatable. Replaces all that were set before."
        ),
    ] = None,
    role: Annotated[str | None, typer.Option(help="Execution role's ARN.")] = None,
    url: Annotated[bool, typer.Option("--url", help="Give it a URL that anybody may call.")] = False,
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The function's configuration as JSON.")] = False,
) -> None:
    """Build, upload, wait until the function is active. Equal code is not uploaded again."""
    name = function_name(name, path)
    options: dict[str, Any] = {"MemorySize": memory, "Timeout": timeout, "Role": role}
    options["Environment"] = {"Variables": variables(env)} if env else None
    service = client("lambda", data)
    plan = detect(path, runtime=runtime, handler=handler, available=_runtimes(data))
    settings = {key: value for key, value in options.items() if value is not None}
    settings |= {"Runtime": plan.runtime, "Handler": plan.handler}
    current = _current(service, name)
    if current is None and role is None:
        settings["Role"] = DEFAULT_ROLE.format(account=account(data))
    archive = _archive(path, plan, quiet=as_json)
    label = f"uploading {name} ({size(len(archive))})"
    with upload_progress(service, label, quiet=as_json):
        done = _create_or_update(service, name, archive, settings, current)
    configuration = _settled(service, name)
    if url:
        configuration["FunctionUrl"] = open_url(service, name)
    if as_json:
        show_json(configuration)
    else:
        memory_mb, code_size = configuration["MemorySize"], size(configuration["CodeSize"])
        typer.echo(f"{done} {name} ({configuration['Runtime']}, {memory_mb} MB, {code_size})")
        if url:
            typer.echo(configuration["FunctionUrl"])


def function_name(given: str | None, path: Path) -> str:
    """The name given, or the folder's.

    Raises:
        BuildError: Lambda would not take it.
    """
    name = given or path.resolve().stem
    if NAME.fullmatch(name) is None:
        raise BuildError(
            f"{name!r} cannot be a function's name (letters, digits, - and _, at most 64); give --name"
        )
    return name


def variables(pairs: Sequence[str]) -> dict[str, str]:
    """``["A1=x"]`` -> ``{"A1": "x"}``. The value may be empty and may contain ``=``.

    Raises:
        typer.BadParameter: not NAME=VALUE, or a name that Lambda does not take.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE", param_hint="'--env'")
        if VARIABLE.fullmatch(name) is None:
            raise typer.BadParameter(
                f"{name!r} must begin with a letter and have two or more letters, digits or _",
                param_hint="'--env'",
            )
        found[name] = value
    return found


def code_sha256(archive: bytes) -> str:
    """As Lambda gives it: base64."""
    return base64.b64encode(hashlib.sha256(archive).digest()).decode()


def changes(settings: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``settings`` that the function does not have already."""
    return {key: value for key, value in settings.items() if current.get(key) != value}


def _archive(path: Path, plan: BuildPlan, *, quiet: bool) -> bytes:
    with tempfile.TemporaryDirectory(prefix="stoker-deploy-") as scratch:
        archive = path if path.is_file() else build(path, plan, Path(scratch), quiet=quiet)
        check_archive(archive)
        return archive.read_bytes()


def _runtimes(data: Path | None) -> tuple[str, ...]:
    """What the service can run; nothing where only its public API can be asked."""
    return () if uses_environment(data) else admin(data).host().runtimes


def _current(service: Any, name: str) -> dict[str, Any] | None:
    try:
        return service.get_function_configuration(FunctionName=name)
    except service.exceptions.ResourceNotFoundException:
        return None


def _create_or_update(
    service: Any, name: str, archive: bytes, settings: dict[str, Any], current: dict[str, Any] | None
) -> str:
    """Returns what was done, in a word."""
    if current is None:
        service.create_function(FunctionName=name, Code={"ZipFile": archive}, **settings)
        return "created"
    new_code = code_sha256(archive) != current["CodeSha256"]
    if new_code:
        service.update_function_code(FunctionName=name, ZipFile=archive)
        service.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=POLL)
    if changed := changes(settings, current):
        service.update_function_configuration(FunctionName=name, **changed)
    return "updated" if new_code or changed else "unchanged:"


def _settled(service: Any, name: str) -> dict[str, Any]:
    """The configuration once the function is active and updated; its State may say that it failed."""
    service.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig=POLL)
    service.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=POLL)
    configuration = service.get_function_configuration(FunctionName=name)
    configuration.pop("ResponseMetadata", None)
    return configuration
