"""The built-in runtimes as data, and their bootstraps: what there is, what this host can run, and how.

Knows languages and their environment variables; never functions, sandboxes or the Runtime API's protocol.
"""

from stoker.runtimes.catalog import (
    AvailableRuntime,
    InvalidEntrypoint,
    RuntimeCatalog,
    RuntimePlan,
    RuntimeUnavailable,
)
from stoker.runtimes.environment import Credentials, FunctionIdentity, function_environment

__all__ = [
    "AvailableRuntime",
    "Credentials",
    "FunctionIdentity",
    "InvalidEntrypoint",
    "RuntimeCatalog",
    "RuntimePlan",
    "RuntimeUnavailable",
    "function_environment",
]
