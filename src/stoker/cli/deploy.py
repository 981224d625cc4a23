"""``stoker deploy``: a folder, a zip or a container image becomes a function, or the new code of one."""

import base64
import hashlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from stoker.cli.build import BuildError, BuildPlan, build, detect
from stoker.cli.connection import DataOption, account, admin, client, uses_environment
from stoker.cli.function_urls import open_url
from stoker.cli.image import taken_in
from stoker.cli.image_source import LOCAL, checked_source, is_image_archive, named_after
from stoker.cli.output import show_json, size
from stoker.cli.source import check_archive
from stoker.cli.upload import upload_progress
from stoker.core.errors import StokerError

DEFAULT_ROLE = "arn:aws:iam::{account}:role/stoker"
NAME = re.compile(r"[a-zA-Z0-9-_]{1,64}")
VARIABLE = re.compile(r"[a-zA-Z][a-zA-Z0-9_]+")
"""Lambda's patterns; a name that does not match is refused before anything is built."""
POLL = {"Delay": 1, "MaxAttempts": 300}


class DeploymentFailed(StokerError):
    """The service has the function, and could not make its code ready."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("deploy", help="Make a function of a folder, a zip file or a container image, or update it.")(
        deploy
    )


def deploy(
    path: Annotated[
        str,
        typer.Argument(
            help="Folder or zip file; HOST/NAME:TAG; an OCI layout, its tar, a docker save archive."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Function name; default: the folder's or image's.")] = None,
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
    source = checked_source(path)
    name = function_name(name, named_after(path, source))
    options: dict[str, Any] = {"MemorySize": memory, "Timeout": timeout, "Role": role}
    options["Environment"] = {"Variables": variables(env)} if env else None
    service = client("lambda", data)
    settings = {key: value for key, value in options.items() if value is not None}
    if source is not None and not is_image_archive(source):
        code = _zip_code(source, name, settings, runtime, handler, data, quiet=as_json)
    else:
        if runtime or handler:
            raise typer.BadParameter("an image says itself what runs it: no --runtime, no --handler")
        code = {"ImageUri": path if source is None else _imported(path, name, data, quiet=as_json)}
    current = _current(service, name)
    if current is None and role is None:
        settings["Role"] = DEFAULT_ROLE.format(account=account(data))
    done = _create_or_update(service, name, code, settings, current, quiet=as_json)
    configuration = _settled(service, name)
    if url:
        configuration["FunctionUrl"] = open_url(service, name)
    if as_json:
        show_json(configuration)
    else:
        typer.echo(f"{done} {name} ({_described(configuration, code)})")
        if url:
            typer.echo(configuration["FunctionUrl"])


def _described(configuration: Mapping[str, Any], code: Mapping[str, Any]) -> str:
    memory = f"{configuration['MemorySize']} MB"
    if "ImageUri" in code:
        return f"{code['ImageUri']}, {memory}"
    return f"{configuration['Runtime']}, {memory}, {size(configuration['CodeSize'])}"


def function_name(given: str | None, found: str) -> str:
    """The name given, or the one that was found.

    Raises:
        BuildError: Lambda would not take it.
    """
    name = given or found
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


def _zip_code(
    path: Path,
    name: str,
    settings: dict[str, Any],
    runtime: str | None,
    handler: str | None,
    data: Path | None,
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Built; ``settings`` get its runtime and handler."""
    plan = detect(path, runtime=runtime, handler=handler, available=_runtimes(data))
    settings |= {"Runtime": plan.runtime, "Handler": plan.handler}
    return {"ZipFile": _archive(path, plan, quiet=quiet)}


def _imported(path: str, name: str, data: Path | None, *, quiet: bool) -> str:
    """The name of an archive's image, which is the service's now. Names of images are in lower case."""
    return f"{LOCAL}/{taken_in(path, name.lower(), None, data, quiet=quiet).name}"


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
    service: Any,
    name: str,
    code: dict[str, Any],
    settings: dict[str, Any],
    current: dict[str, Any] | None,
    *,
    quiet: bool,
) -> str:
    """Returns what was done, in a word."""
    if current is None:
        kind = {"PackageType": "Image"} if "ImageUri" in code else {}
        with _upload(service, name, code, quiet=quiet):
            service.create_function(FunctionName=name, Code=code, **kind, **settings)
        return "created"
    new_code = _update_code(service, name, code, current, quiet=quiet)
    if changed := changes(settings, current):
        service.update_function_configuration(FunctionName=name, **changed)
    return "updated" if new_code or changed else "unchanged:"


def _update_code(
    service: Any, name: str, code: dict[str, Any], current: dict[str, Any], *, quiet: bool
) -> bool:
    """False: it has that code already. What is behind an image's name, the service finds out."""
    if "ZipFile" in code and code_sha256(code["ZipFile"]) == current["CodeSha256"]:
        return False
    with _upload(service, name, code, quiet=quiet):
        answer = service.update_function_code(FunctionName=name, **code)
    service.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=POLL)
    return answer["CodeSha256"] != current["CodeSha256"]


def _upload(service: Any, name: str, code: dict[str, Any], *, quiet: bool) -> AbstractContextManager[None]:
    archive = code.get("ZipFile")
    if archive is None:
        return nullcontext()
    return upload_progress(service, f"uploading {name} ({size(len(archive))})", quiet=quiet)


def _settled(service: Any, name: str) -> dict[str, Any]:
    """The configuration once the function is active and updated.

    Raises:
        DeploymentFailed: it will not be; the message is the service's reason.
    """
    from botocore.exceptions import WaiterError  # noqa: PLC0415  (a quarter of a second)

    try:
        service.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig=POLL)
        service.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=POLL)
    except WaiterError as problem:
        last: Any = problem.last_response
        reason = last.get("StateReason") or last.get("LastUpdateStatusReason") or str(problem)
        raise DeploymentFailed(f"{name}: {reason}") from problem
    configuration = service.get_function_configuration(FunctionName=name)
    configuration.pop("ResponseMetadata", None)
    return configuration
