"""The URL that ``stoker deploy --url`` gives a function: open to everybody, made once and kept."""

import contextlib
from typing import Any

STATEMENT_ID = "FunctionURLAllowPublicAccess"
"""As AWS's console names the statement."""


def open_url(service: Any, name: str) -> str:
    """The function's URL, which anybody may call from now on; one that asks for signatures stays so."""
    try:
        found = service.get_function_url_config(FunctionName=name)
    except service.exceptions.ResourceNotFoundException:
        found = service.create_function_url_config(FunctionName=name, AuthType="NONE")
    if found["AuthType"] == "NONE":
        # A second deployment finds the statement there.
        with contextlib.suppress(service.exceptions.ResourceConflictException):
            service.add_permission(
                FunctionName=name,
                StatementId=STATEMENT_ID,
                Action="lambda:InvokeFunctionUrl",
                Principal="*",
                FunctionUrlAuthType="NONE",
            )
    return found["FunctionUrl"]
