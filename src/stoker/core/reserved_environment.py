"""The environment variables that belong to the execution environment, not to a function's configuration."""

from collections.abc import Iterable

RESERVED = frozenset(
    {
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SECRET_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "_HANDLER",
        "_LAMBDA_TELEMETRY_LOG_FD",
        "_X_AMZN_TRACE_ID",
    }
)
"""Keys that a function's configuration may not set; the developer guide names them."""


def reserved_among(variables: Iterable[str]) -> list[str]:
    """The keys among ``variables`` that a function may not set, sorted."""
    return sorted(set(variables) & RESERVED)
