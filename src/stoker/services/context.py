"""Who asks: what every operation learns of its caller once the signature was checked."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec


class RequestContext(msgspec.Struct, frozen=True):
    """One authenticated request. Resources belong to (account, region)."""

    request_id: str
    account: str
    region: str
    access_key_id: str
    principal_arn: str
    source_ip: str
    endpoint: str
    """How this caller reaches Stoker (``http://127.0.0.1:9797``); for URLs that answers carry."""
    session_policy: str = ""
    """What narrows the caller's session beyond its role; empty: nothing does."""
    bound_to: str = ""
    """ARN or unique id of the role or user whose session it is; empty: it is none."""


OperationHandler = Callable[[RequestContext, Any], Awaitable[Any]]
"""What serves one modelled operation: the typed request in, the typed response out.

Requests and responses are the records of ``services.lambda_types`` (or ``logs_types``) that carry the
operation's name; a handler raises ServiceError for every answer that is not a success.
"""
