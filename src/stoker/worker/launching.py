"""From a function version to what a driver needs: limits, mounts, argv and environment. Pure functions."""

import datetime
import hashlib
import os
import stat
from collections.abc import Mapping

import msgspec

from stoker.core.limits import INIT_TIMEOUT_S, MB_PER_CPU, PROVISIONED_INIT_TIMEOUT_S
from stoker.runtimes.catalog import RuntimePlan
from stoker.runtimes.environment import (
    Credentials,
    FunctionIdentity,
    function_environment,
    needs_fresh_process,
)
from stoker.sandbox.driver import SERVICE_API_PORT, Launch, MountPoint, SandboxLimits, SandboxUser
from stoker.services.credentials import Credential
from stoker.services.functions import FunctionKey, FunctionVersion
from stoker.services.volumes import MountSource, below

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SERVICE_API = f"http://127.0.0.1:{SERVICE_API_PORT}"

ENDPOINTS: Mapping[str, str] = {
    "AWS_ENDPOINT_URL_LAMBDA": _SERVICE_API,
    "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": _SERVICE_API,
    "AWS_ENDPOINT_URL_IAM": _SERVICE_API,
    "AWS_ENDPOINT_URL_STS": _SERVICE_API,
}
"""Where a function's SDK finds what Stoker serves; names by the SDKs' service ids."""


def limits_of(function: FunctionVersion, cpu_policy: str, *, initialising: bool) -> SandboxLimits:
    """What the sandbox may use; Init has the whole CPU, as on AWS."""
    share = 0.0 if initialising else function.memory_mb / MB_PER_CPU
    return SandboxLimits(
        function.memory_mb, share, cpu_policy, function.tmp_mb, cpu_group=cpu_group_of(function.key)
    )


def init_timeout_s(function: FunctionVersion, *, provisioned: bool) -> float:
    """How long the first Init may take."""
    return max(PROVISIONED_INIT_TIMEOUT_S, float(function.timeout_s)) if provisioned else INIT_TIMEOUT_S


def cpu_group_of(key: FunctionKey) -> int:
    """A function's number among those that share the CPU: its versions count as one. Never 0."""
    name = f"{key.account}/{key.region}/{key.name}".encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) | 1


class CodeFolders(msgspec.Struct, frozen=True):
    """A function's code. Beside the plan, never in it: pooled sandboxes are made from plans."""

    task: MountSource | None = None
    """None: the code is an image."""
    cache: MountSource | None = None
    """What was compiled of it ahead, where that is a folder of its own."""
    opt: MountSource | None = None
    """Its layers, merged."""
    extensions: tuple[str, ...] = ()
    """External extensions that its layers, or its image, hold."""
    root: MountSource | None = None
    """Its image, mounted: there is nothing beside it then."""
    user: SandboxUser | None = None
    """Whom the image names."""


def code_mounts_of(code: CodeFolders) -> dict[MountPoint, MountSource]:
    """The function's code and layers."""
    places = {MountPoint.TASK: code.task, MountPoint.OPT: code.opt, MountPoint.CODE_CACHE: code.cache}
    return {place: folder for place, folder in places.items() if folder is not None}


def mounts_of(plan: RuntimePlan, code: CodeFolders) -> dict[MountPoint, MountSource]:
    """The runtime's folders and the function's code."""
    if code.root is not None:
        return {MountPoint.ROOT: code.root}
    mounts: dict[MountPoint, MountSource] = {MountPoint(at): folder for at, folder in plan.mounts.items()}
    return mounts | code_mounts_of(code)


def extensions_in(opt: MountSource) -> tuple[str, ...]:
    """Names of the external extensions that AWS would start: executables in /opt/extensions, sorted."""
    path, directory = below(opt, "extensions")
    try:
        # An uploaded link must not list a folder of the host.
        folder = os.open(path, _DIRECTORY, dir_fd=directory)
    except OSError:
        return ()
    try:
        return tuple(name for name in sorted(os.listdir(folder)) if _is_program(folder, name))
    finally:
        os.close(folder)


def _is_program(folder: int, name: str) -> bool:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    # What a link leads to is known inside the sandbox alone.
    return stat.S_ISLNK(status.st_mode) or bool(stat.S_ISREG(status.st_mode) and status.st_mode & 0o111)


def launch_of(
    plan: RuntimePlan,
    function: FunctionVersion,
    credential: Credential,
    *,
    log_stream: str,
    telemetry_fd: int,
    initialization_type: str = "on-demand",
) -> Launch:
    """The runtime's process with its whole environment."""
    identity = FunctionIdentity(
        name=function.key.name,
        version=function.version,
        handler=function.handler or plan.handler,
        memory_mb=function.memory_mb,
        region=function.key.region,
        log_group=function.logging.log_group,
        log_stream=log_stream,
        log_format=function.logging.log_format,
        application_log_level=function.logging.application_log_level,
        initialization_type=initialization_type,
    )
    keys = Credentials(credential.access_key_id, credential.secret, credential.session_token or "")
    environment = function_environment(
        plan.environment,
        identity,
        function.environment or {},
        keys,
        telemetry_fd=telemetry_fd,
        endpoints=ENDPOINTS,
    )
    return Launch(plan.argv, environment, plan.working_directory)


def assignment_of(launch: Launch) -> bytes:
    """What a pooled runtime is told instead of being launched: JSON for its bootstrap."""
    return msgspec.json.encode(
        {"environment": launch.environment, "working_directory": launch.working_directory}
    )


def is_poolable(plan: RuntimePlan, function: FunctionVersion) -> bool:
    """Whether a runtime that was started before its function was known can become this one."""
    variables = function.environment or {}
    if plan.runtime.startswith("provided") or needs_fresh_process(variables, plan.runtime):
        return False
    # What cannot be told in JSON is left to the launch, which says what is wrong with it.
    texts = (*variables, *variables.values(), function.handler or "")
    return all(text.isprintable() or ("\0" not in text and _is_encodable(text)) for text in texts)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def log_stream_of(function: FunctionVersion, now_s: float, unique_hex: str) -> str:
    """``2026/01/31/[$LATEST]0123…``: day of creation (UTC), version, 32 hexadecimal digits."""
    day = datetime.datetime.fromtimestamp(now_s, tz=datetime.UTC).strftime("%Y/%m/%d")
    return f"{day}/[{function.version}]{unique_hex}"


def runtime_version_of(function: FunctionVersion) -> tuple[str, str]:
    """What INIT_START names: a version of the runtime and its ARN."""
    runtime = function.runtime or "provided"
    name, version = runtime, ""
    for family in ("python", "nodejs", "java", "dotnet", "ruby", "provided"):
        if runtime.startswith(family):
            name, version = family, runtime.removeprefix(family).removesuffix(".x").lstrip(".")
            break
    # The same name that RuntimeVersionConfig shows.
    digest = hashlib.sha256(f"{runtime} {function.architecture}".encode()).hexdigest()
    text = ":".join(part for part in (name, version, "stoker") if part)
    return text, f"arn:aws:lambda:{function.key.region}::runtime:{digest}"
