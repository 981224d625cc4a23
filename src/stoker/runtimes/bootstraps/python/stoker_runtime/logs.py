"""The root logger's handler and formats as AWS Lambda sets them up. Runs when ``logging`` is imported."""

# ruff: noqa: PLC0415 - what a start does not need is imported where it is used

import os
import time

from stoker_runtime.sinks import frame_type, is_json_format

_DATETIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_RESERVED_FIELDS = frozenset(
    [
        "name",
        "msg",
        "args",
        "levelname",
        "levelno",
        "pathname",
        "filename",
        "module",
        "exc_info",
        "exc_text",
        "stack_info",
        "lineno",
        "funcName",
        "created",
        "msecs",
        "relativeCreated",
        "thread",
        "threadName",
        "processName",
        "process",
        "aws_request_id",
        "tenant_id",
        "_frame_type",
    ]
)


def set_up(logging, log_sink, runtime):
    """Give the root logger Lambda's handler, level and format.

    ``runtime`` holds ``invocation_id`` and ``tenant_id`` of the running invocation.
    """
    logging.Formatter.converter = time.gmtime
    level = _level()
    framed = is_json_format() or bool(level)
    handler = _handler_class(logging)(log_sink, framed)
    if is_json_format():
        handler.setFormatter(_json_formatter_class(logging)())
    else:
        handler.setFormatter(
            logging.Formatter(
                "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n",
                "%Y-%m-%dT%H:%M:%S",
            )
        )
    root = logging.getLogger()
    if level in logging._nameToLevel:
        root.setLevel(level)
    handler.addFilter(_filter_class(logging)(runtime))
    root.addHandler(handler)


def _level():
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL")
    return {None: "", "TRACE": "DEBUG"}.get(level, level).upper()


def _rounded(level):
    return min(50, max(0, level)) // 10 * 10


def _filter_class(logging):
    class LambdaLoggerFilter(logging.Filter):
        def __init__(self, runtime):
            super().__init__()
            self._runtime = runtime

        def filter(self, record):
            record.aws_request_id = self._runtime.invocation_id or ""
            record.tenant_id = self._runtime.tenant_id
            return True

    return LambdaLoggerFilter


def _handler_class(logging):
    class LambdaLoggerHandler(logging.Handler):
        def __init__(self, log_sink, framed):
            super().__init__()
            self.log_sink = log_sink
            self._framed = framed

        def emit(self, record):
            message = self.format(record)
            if not self._framed:
                self.log_sink.log(message)
                return
            kind = getattr(record, "_frame_type", None) or frame_type(_rounded(record.levelno), False)
            self.log_sink.log(message, frame_type=kind)

    return LambdaLoggerHandler


def _json_formatter_class(logging):
    import json
    import traceback

    encode = json.JSONEncoder(ensure_ascii=False, default=str).encode

    class JsonFormatter(logging.Formatter):
        def __init__(self):
            super().__init__(datefmt=_DATETIME_FORMAT)

        def format(self, record):
            record.levelno = _rounded(record.levelno)
            record.levelname = logging.getLevelName(record.levelno)
            record._frame_type = frame_type(record.levelno, True)
            failed = record.exc_info
            result = {
                "timestamp": self.formatTime(record, self.datefmt),
                "level": record.levelname,
                "message": _message(record),
                "logger": record.name,
                "stackTrace": traceback.format_tb(failed[2]) if failed else None,
                "errorType": failed[0].__name__ if failed else None,
                "errorMessage": str(failed[1]) if failed else None,
                "requestId": getattr(record, "aws_request_id", None),
                "location": _location(record) if failed else None,
            }
            if getattr(record, "tenant_id", None) is not None:
                result["tenantId"] = record.tenant_id
            for key, value in record.__dict__.items():
                if key not in _RESERVED_FIELDS and key not in result:
                    result[key] = value
            return encode({k: v for k, v in result.items() if v is not None}) + "\n"

    return JsonFormatter


def _message(record):
    return record.msg if isinstance(record.msg, dict) and not record.args else record.getMessage()


def _location(record):
    return f"{record.pathname}:{record.funcName}:{record.lineno}"
