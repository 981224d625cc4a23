"""``stoker deploy``: a folder or a zip becomes a function, or the new code of one."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from botocore.exceptions import ClientError

from stoker.cli.build import BuildPlan, build, detect
from stoker.cli.connection import client
from stoker.cli.output import console, show_json, size
from stoker.cli.upload import upload_progress

DEFAULT_ROLE = "arn:aws:iam::{account}:role/stoker"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("deploy", help="Make a function of a folder or a zip file, or update it.")(deploy)


def deploy(
    path: Annotated[Path, typer.Argument(help="Folder or zip file.", exists=True)],
    name: Annotated[str | None, typer.Option(help="Function name; default: the folder's.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Default: what the folder's files say.")] = None,
    handler: Annotated[str | None, typer.Option(help="Default: what the folder's files say.")] = None,
    memory: Annotated[int | None, typer.Option(help="Memory in MB.")] = None,
    timeout: Annotated[int | None, typer.Option(help="Time-out in seconds.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="Environment variable NAME=VALUE; repeatable.")
    ] = None,
    role: Annotated[str | None, typer.Option(help="Execution role's ARN.")] = None,
    data: Annotated[Path | None, typer.Option(help="The running service's data folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The function's configuration as JSON.")] = False,
) -> None:
    """Build, upload, wait until the function is active."""
    name = name or path.resolve().stem
    plan = detect(path, runtime=runtime, handler=handler)
    service = client("lambda", data)
    with tempfile.TemporaryDirectory(prefix="stoker-deploy-") as scratch:
        archive = path if path.is_file() else build(path, plan, Path(scratch), quiet=as_json)
        settings = _settings(plan, memory, timeout, env)
        with upload_progress(service, f"uploading {name} ({size(archive.stat().st_size)})", quiet=as_json):
            created = _create_or_update(service, name, archive.read_bytes(), settings, role)
    service.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
    service.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
    configuration = service.get_function_configuration(FunctionName=name)
    configuration.pop("ResponseMetadata", None)
    if as_json:
        show_json(configuration)
        return
    console.print(
        f"{'created' if created else 'updated'} [bold]{name}[/] "
        f"({configuration['Runtime']}, {configuration['MemorySize']} MB, {size(configuration['CodeSize'])})"
    )


def _settings(
    plan: BuildPlan, memory: int | None, timeout: int | None, env: list[str] | None
) -> dict[str, Any]:
    settings: dict[str, Any] = {"Runtime": plan.runtime, "Handler": plan.handler}
    if memory:
        settings["MemorySize"] = memory
    if timeout:
        settings["Timeout"] = timeout
    if env:
        pairs = [pair.partition("=") for pair in env]
        settings["Environment"] = {"Variables": {name: value for name, _, value in pairs}}
    return settings


def _create_or_update(
    service: Any, name: str, archive: bytes, settings: dict[str, Any], role: str | None
) -> bool:
    """Returns whether the function is new."""
    try:
        service.get_function_configuration(FunctionName=name)
    except ClientError as problem:
        if problem.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        role = role or DEFAULT_ROLE.format(account="0" * 12)
        service.create_function(FunctionName=name, Role=role, Code={"ZipFile": archive}, **settings)
        return True
    service.update_function_code(FunctionName=name, ZipFile=archive)
    service.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 1})
    service.update_function_configuration(FunctionName=name, **settings, **({"Role": role} if role else {}))
    return False
