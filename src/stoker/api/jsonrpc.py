"""The JSON 1.1 protocol of CloudWatch Logs: X-Amz-Target names the operation, everything else is body."""

from typing import Any, Final

import msgspec

from stoker.api.errors import not_implemented, unknown_operation
from stoker.api.model import Operation, Service
from stoker.api.parse import build_record, read_json
from stoker.services.context import OperationHandler

VIOLATION_CODE: Final = "InvalidParameterException"
"""What CloudWatch Logs calls what others call ValidationException."""


def find_json_operation(service: Service, target: bytes) -> Operation:
    """The operation that ``target`` (``Logs_20140328.GetLogEvents``) names.

    Raises:
        ServiceError: UnknownOperationException, or NotImplementedException for what only AWS has.
    """
    prefix, _, name = target.decode("latin-1").rpartition(".")
    if prefix != service.target_prefix or name not in service.known:
        raise unknown_operation(service.name)
    operation = service.operations.get(name)
    if operation is None:
        raise not_implemented(service.name, name)
    return operation


def find_handler(operation: Operation, handlers: dict[str, OperationHandler]) -> OperationHandler:
    """What serves ``operation``; NotImplementedException when nothing does."""
    handler = handlers.get(operation.name)
    if handler is None:
        raise not_implemented(operation.service, operation.name)
    return handler


def parse_json_request(operation: Operation, body: Any) -> msgspec.Struct:
    """The request record.

    Raises:
        ServiceError: SerializationException, InvalidParameterException.
    """
    return build_record(operation, read_json(body) if len(body) else {}, VIOLATION_CODE)
