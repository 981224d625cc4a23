"""Messages between rooms as bytes and back, errors included: whatever cannot be carried is found here."""

from typing import Any, TypeVar

import msgspec

from stoker.core.errors import ServiceError, StokerError
from stoker.services.queue import QueueFull
from stoker.services.worker import InitFailed, RuntimeUnavailable, StaleReference, WorkerUnavailable

T = TypeVar("T")

_CARRIED: dict[str, type[StokerError]] = {
    error.__name__: error
    for error in (InitFailed, RuntimeUnavailable, StaleReference, WorkerUnavailable, QueueFull)
}


class Failure(msgspec.Struct, frozen=True):
    """An error on its way to the other side."""

    kind: str
    message: str
    fields: dict[str, str] = {}
    code: str = ""


class UncarriedError(StokerError):
    """The other side raised an error that no port names."""


class Messages:
    """How a hop carries values: as they are, or through msgpack and back."""

    def __init__(self, *, encode: bool) -> None:
        self._encode = encode

    def carry(self, value: T, kind: Any) -> T:
        """The value as the other side of the hop sees it; ``kind`` is its declared type.

        Raises:
            TypeError, msgspec.ValidationError: the value cannot be carried, or does not arrive as declared.
        """
        if not self._encode:
            return value
        return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind)

    def carry_error(self, error: Exception) -> Exception:
        """An error as the other side of the hop sees it."""
        if not self._encode:
            return error
        return restore(self.carry(describe(error), Failure))


def describe(error: Exception) -> Failure:
    """An error as a message."""
    if isinstance(error, ServiceError):
        return Failure("ServiceError", error.message, error.fields, error.code)
    return Failure(type(error).__name__, str(error))


def restore(failure: Failure) -> StokerError:
    """The error in a message."""
    if failure.kind == "ServiceError":
        return ServiceError(failure.code, failure.message, fields=failure.fields)
    kind = _CARRIED.get(failure.kind)
    if kind is None:
        return UncarriedError(f"{failure.kind}: {failure.message}")
    return kind(failure.message)
