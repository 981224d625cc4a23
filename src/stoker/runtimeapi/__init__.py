"""The Lambda Runtime API: pure states and one server per sandbox, plus the framed log pipe's parser."""

from stoker.runtimeapi.records import MAX_RESPONSE_BYTES, RuntimeEvents, RuntimeInvocation
from stoker.runtimeapi.server import RuntimeApi
from stoker.runtimeapi.telemetry import LogRecord, TelemetryParser

__all__ = [
    "MAX_RESPONSE_BYTES",
    "LogRecord",
    "RuntimeApi",
    "RuntimeEvents",
    "RuntimeInvocation",
    "TelemetryParser",
]
