"""The one hierarchy of errors. What each looks like on the wire is known to ``api`` alone."""


class StokerError(Exception):
    """Root of everything Stoker raises on purpose."""


class ServiceError(StokerError):
    """An answer of the Lambda API other than success: an AWS error code and its message.

    ``code`` is the modelled error's name (``ResourceNotFoundException``); ``fields`` are further members of
    the modelled error shape, such as ``Reason`` of TooManyRequestsException.
    """

    def __init__(self, code: str, message: str, *, fields: dict[str, str] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.fields: dict[str, str] = fields or {}


def invalid_parameter(message: str) -> ServiceError:
    """The caller's parameters are wrong (400 InvalidParameterValueException)."""
    return ServiceError("InvalidParameterValueException", message, fields={"Type": "User"})


def not_found(message: str) -> ServiceError:
    """The resource does not exist (404 ResourceNotFoundException)."""
    return ServiceError("ResourceNotFoundException", message, fields={"Type": "User"})


def conflict(message: str) -> ServiceError:
    """The resource exists already or is in a state that forbids the call (409 ResourceConflictException)."""
    return ServiceError("ResourceConflictException", message, fields={"Type": "User"})


def precondition_failed(message: str) -> ServiceError:
    """A RevisionId or other guard does not match (412 PreconditionFailedException)."""
    return ServiceError("PreconditionFailedException", message, fields={"Type": "User"})


def too_many_requests(message: str, reason: str) -> ServiceError:
    """Throttled (429 TooManyRequestsException); ``reason`` is one of the model's ThrottleReason values."""
    return ServiceError("TooManyRequestsException", message, fields={"Type": "User", "Reason": reason})


class SandboxError(StokerError):
    """Something about a sandbox went wrong on this host."""


class SandboxCreateError(SandboxError):
    """A sandbox could not be made; nothing of it is left."""


class LaunchRefused(SandboxError):
    """The process of a sandbox was not started; the sandbox is as it was.

    ``number`` is the errno that stopped it; ``misplaced`` says that it was its folder, not its program.
    """

    def __init__(self, message: str, number: int, *, misplaced: bool = False) -> None:
        super().__init__(message)
        self.number = number
        self.misplaced = misplaced


class SandboxDied(SandboxError):
    """The sandbox is gone; whatever was asked of it did not happen."""


class IllegalTransition(StokerError):
    """A state machine was asked for a move that its table does not list."""
