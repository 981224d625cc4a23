"""Errors of the control plane as AWS words them (recorded answers; public reports where none is recorded)."""

from stoker.core.errors import ServiceError, conflict, invalid_parameter, not_found, precondition_failed


def function_not_found(arn: str) -> ServiceError:
    """404 for a function, version or alias."""
    return not_found(f"Function not found: {arn}")


def alias_not_found(arn: str) -> ServiceError:
    """404 for an alias, by operations that expect one."""
    return not_found(f"Cannot find alias arn: {arn}")


def update_in_progress(arn: str) -> ServiceError:
    """409 while an earlier update is under way."""
    return conflict(
        f"The operation cannot be performed at this time. An update is in progress for resource: {arn}"
    )


def wrong_state(state: str) -> ServiceError:
    """409 for an update of a function that is still being created."""
    return conflict(
        "The operation cannot be performed at this time. "
        f"The function is currently in the following state: {state}"
    )


def revision_mismatch() -> ServiceError:
    """412 for a RevisionId that is not the latest."""
    return precondition_failed(
        "The Revision Id provided does not match the latest Revision Id. "
        "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
    )


def constraint(value: object, member: str, rule: str) -> ServiceError:
    """400 ValidationException in the wording of AWS's model checks."""
    return ServiceError(
        "ValidationException",
        f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {rule}",
    )


def not_implemented(what: str) -> ServiceError:
    """501 for what the API knows and Stoker cannot do yet; nothing is accepted and ignored."""
    return ServiceError("NotImplementedException", f"{what} is not implemented yet.")


def object_failed(code: str, message: str) -> ServiceError:
    """400 for an S3 source that could not be read."""
    return invalid_parameter(
        f"Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {message}"
    )
