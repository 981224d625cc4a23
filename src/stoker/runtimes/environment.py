"""The environment variables of a function's process, as AWS Lambda sets them. Pure functions of plain values.

Sources: AWS's developer guide ("Defined runtime environment variables") and the environment recorded inside
real functions.
"""

from collections.abc import Iterable, Mapping

import msgspec

from stoker.core.reserved_environment import RESERVED

RUNTIME_API_ADDRESS = "127.0.0.1:9001"
"""Where the runtime finds its API inside the sandbox."""

POOLED = "STOKER_POOLED"
"""Set in the environment a pre-started runtime is launched with; it is gone once a function is assigned."""

ZYGOTE = "zygote"
"""Its value where the runtime is to fork into pooled sandboxes instead of being one's own."""

FORCE_FRESH_PROCESS = frozenset(
    {"AWS_LAMBDA_EXEC_WRAPPER", "GCONV_PATH", "LANG", "LANGUAGE", "LOCPATH", "OPENSSL_CONF", "TZ"}
)
_FRESH_PREFIXES = ("GLIBC_", "ICU_", "LC_", "LD_", "MALLOC_", "NODE_", "OPENSSL_", "PYTHON", "SSL_", "UV_")
_READ_LATER = frozenset({"NODE_ENV"})
"""Node.js itself never reads it; most functions that set anything set this."""


class Credentials(msgspec.Struct, frozen=True):
    """What the function signs its own calls with: temporary keys of its execution role."""

    access_key_id: str
    secret_access_key: str
    session_token: str


class FunctionIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform tells a function about itself."""

    name: str
    version: str
    handler: str
    memory_mb: int
    region: str
    log_group: str
    log_stream: str
    initialization_type: str = "on-demand"
    """``on-demand``, ``provisioned-concurrency`` or ``snap-start``."""
    log_format: str = "Text"
    """``Text`` or ``JSON`` (LoggingConfig)."""
    application_log_level: str | None = None
    """Only with JSON logs."""


def function_environment(
    base: Mapping[str, str],
    function: FunctionIdentity,
    variables: Mapping[str, str],
    credentials: Credentials,
    *,
    telemetry_fd: int | None = None,
    endpoints: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The whole environment of a function's process.

    ``base`` is the runtime plan's environment; the function's own ``variables`` may override it (PATH, TZ,
    ...) but nothing reserved: what the platform says comes last. ``endpoints`` are defaults such as
    ``AWS_ENDPOINT_URL_LAMBDA`` that the function may override too. ``telemetry_fd`` is the number of the
    framed log pipe inside the process.
    """
    platform = {
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_SESSION_TOKEN": credentials.session_token,
        "AWS_REGION": function.region,
        "AWS_DEFAULT_REGION": function.region,
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": function.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": function.initialization_type,
        "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": function.log_stream,
        "AWS_LAMBDA_RUNTIME_API": RUNTIME_API_ADDRESS,
        "_HANDLER": function.handler,
    }
    platform.update({key: base[key] for key in RESERVED if key in base})
    if telemetry_fd is not None:
        platform["_LAMBDA_TELEMETRY_LOG_FD"] = str(telemetry_fd)
    allowed = {key: value for key, value in variables.items() if key not in RESERVED}
    return {**base, **_logging(function), **(endpoints or {}), **allowed, **platform}


def _logging(function: FunctionIdentity) -> dict[str, str]:
    """Log settings reach the runtime only where the function asked for JSON, as on AWS."""
    if function.log_format != "JSON":
        return {}
    level = function.application_log_level or "INFO"
    return {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": level}


def pooled_environment(base: Mapping[str, str]) -> dict[str, str]:
    """What a pre-started runtime is launched with: nothing of any function.

    ``base``, the runtime plan's, comes first as in ``function_environment``: what stays keeps its place.
    """
    return {**base, "AWS_LAMBDA_RUNTIME_API": RUNTIME_API_ADDRESS, POOLED: "1"}


def zygote_environment(base: Mapping[str, str]) -> dict[str, str]:
    """What a zygote is launched with, and so what its children wait with."""
    return {**pooled_environment(base), POOLED: ZYGOTE}


def needs_fresh_process(variables: Iterable[str], runtime: str = "") -> bool:
    """Whether any of a function's own variables acts only when a process starts.

    A pre-started ``runtime`` cannot serve such a function: its loader, interpreter or locale are set already.
    Only Python can be told of another time zone later.
    """
    return any(
        (key in FORCE_FRESH_PROCESS or key.startswith(_FRESH_PREFIXES))
        and key not in _READ_LATER
        and not (key == "TZ" and runtime.startswith("python"))
        for key in variables
    )
