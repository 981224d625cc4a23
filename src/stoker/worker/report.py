"""The platform's own log lines: INIT_START, INIT_REPORT, START, END and REPORT, as text and as JSON. Pure.

Formats: lines recorded from AWS Lambda; the JSON events of its Telemetry API schema (2022-12-13).
"""

import datetime
import math
from typing import Any

import msgspec

from stoker.worker.outcome import Outcome

NOT_STARTED = "Stoker.ExternalExtensionsNotSupported"
_CONTROLS = dict.fromkeys((*range(32), 127), "?")
"""What a file name must not do to a line."""

_LEVELS = {"DEBUG": 0, "INFO": 1, "WARN": 2}


class Usage(msgspec.Struct, frozen=True):
    """What one invocation took."""

    duration_ms: float
    memory_mb: int
    memory_used_mb: int
    init_ms: float | None = None

    @property
    def billed_ms(self) -> int:
        """Whole milliseconds; since August 2025 the Init phase counts too."""
        return math.ceil(round(self.duration_ms + (self.init_ms or 0.0), 3))


def iso_time(now_s: float) -> str:
    """``2026-01-31T12:00:00.000Z``."""
    moment = datetime.datetime.fromtimestamp(math.floor(now_s * 1000) / 1000, tz=datetime.UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class TextReport:
    """The lines of LoggingConfig LogFormat=Text."""

    __slots__ = ()

    def init_start(self, now_s: float, runtime_version: str, runtime_arn: str) -> str | None:
        return f"INIT_START Runtime Version: {runtime_version}\tRuntime Version ARN: {runtime_arn}\n"

    def extension(self, now_s: float, name: str) -> str | None:
        """One that is not started; the line is that of an extension which AWS could not start."""
        shown = name.translate(_CONTROLS)
        return f"EXTENSION\tName: {shown}\tState: LaunchError\tEvents: []\tError Type: {NOT_STARTED}\n"

    def init_report(self, now_s: float, duration_ms: float, phase: str, outcome: Outcome) -> str | None:
        """Only failures are reported: a good Init shows in REPORT."""
        if outcome.status == "success":
            return None
        line = f"INIT_REPORT Init Duration: {duration_ms:.2f} ms\tPhase: {phase}\tStatus: {outcome.status}"
        if outcome.status == "error":
            line += f"\tError Type: {outcome.error_type}"
        return line + "\n"

    def start(self, now_s: float, request_id: str, version: str) -> str | None:
        return f"START RequestId: {request_id} Version: {version}\n"

    def fault(self, now_s: float, outcome: Outcome) -> str | None:
        if outcome.log_line is None:
            return None
        return f"{iso_time(now_s)} {outcome.log_line}" if outcome.status == "timeout" else outcome.log_line

    def end(self, now_s: float, request_id: str, usage: Usage, outcome: Outcome, trace_id: str) -> str | None:
        return f"END RequestId: {request_id}\n"

    def report(
        self, now_s: float, request_id: str, usage: Usage, outcome: Outcome, trace_id: str
    ) -> str | None:
        line = (
            f"REPORT RequestId: {request_id}\tDuration: {usage.duration_ms:.2f} ms\t"
            f"Billed Duration: {usage.billed_ms} ms\tMemory Size: {usage.memory_mb} MB\t"
            f"Max Memory Used: {usage.memory_used_mb} MB\t"
        )
        if usage.init_ms is not None:
            line += f"Init Duration: {usage.init_ms:.2f} ms\t"
        # A function error that its runtime posted is no fault of the environment: AWS shows no status for it.
        if outcome.status == "timeout":
            line += "Status: timeout"
        elif outcome.status == "error" and not outcome.healthy:
            line += f"Status: error\tError Type: {outcome.error_type}"
        return line + "\n"


class JsonReport:
    """The events of LoggingConfig LogFormat=JSON that pass the SystemLogLevel."""

    __slots__ = ("_level",)

    def __init__(self, system_log_level: str | None) -> None:
        self._level = _LEVELS.get(system_log_level or "INFO", 1)

    def init_start(self, now_s: float, runtime_version: str, runtime_arn: str) -> str | None:
        record = {
            "initializationType": "on-demand",
            "phase": "init",
            "runtimeVersion": runtime_version,
            "runtimeVersionArn": runtime_arn,
        }
        return self._event(now_s, "platform.initStart", "INFO", record)

    def extension(self, now_s: float, name: str) -> str | None:
        events: list[str] = []
        record = {"name": name, "state": "LaunchError", "events": events, "errorType": NOT_STARTED}
        return self._event(now_s, "platform.extension", "WARN", record)

    def init_report(self, now_s: float, duration_ms: float, phase: str, outcome: Outcome) -> str | None:
        record: dict[str, Any] = {
            "initializationType": "on-demand",
            "phase": phase,
            "status": outcome.status,
            **_error_type(outcome),
        }
        level = _level(outcome, "DEBUG")
        done = self._event(now_s, "platform.initRuntimeDone", level, record)
        record["metrics"] = {"durationMs": round(duration_ms, 3)}
        report = self._event(now_s, "platform.initReport", level, record)
        return None if done is None or report is None else done + report

    def start(self, now_s: float, request_id: str, version: str) -> str | None:
        record = {"requestId": request_id, "version": version}
        return self._event(now_s, "platform.start", "INFO", record)

    def fault(self, now_s: float, outcome: Outcome) -> str | None:
        if outcome.log_line is None:
            return None
        return self._event(now_s, "platform.fault", "WARN", outcome.log_line.rstrip("\n"))

    def end(self, now_s: float, request_id: str, usage: Usage, outcome: Outcome, trace_id: str) -> str | None:
        """The runtime is done; for success at level DEBUG only."""
        produced_bytes = len(outcome.payload) if outcome.function_error is None else 0
        record: dict[str, Any] = {
            "requestId": request_id,
            "status": outcome.status,
            **_error_type(outcome),
            "metrics": {"durationMs": round(usage.duration_ms, 3), "producedBytes": produced_bytes},
            **_tracing(trace_id),
        }
        return self._event(now_s, "platform.runtimeDone", _level(outcome, "DEBUG"), record)

    def report(
        self, now_s: float, request_id: str, usage: Usage, outcome: Outcome, trace_id: str
    ) -> str | None:
        metrics: dict[str, Any] = {
            "durationMs": round(usage.duration_ms, 3),
            "billedDurationMs": usage.billed_ms,
            "memorySizeMB": usage.memory_mb,
            "maxMemoryUsedMB": usage.memory_used_mb,
        }
        if usage.init_ms is not None:
            metrics["initDurationMs"] = round(usage.init_ms, 3)
        record: dict[str, Any] = {
            "requestId": request_id,
            "metrics": metrics,
            **_tracing(trace_id),
            "status": outcome.status,
            **_error_type(outcome),
        }
        return self._event(now_s, "platform.report", _level(outcome, "INFO"), record)

    def _event(self, now_s: float, kind: str, level: str, record: object) -> str | None:
        if _LEVELS[level] < self._level:
            return None
        return msgspec.json.encode({"time": iso_time(now_s), "type": kind, "record": record}).decode() + "\n"


def _level(outcome: Outcome, of_success: str) -> str:
    return of_success if outcome.status == "success" else "WARN"


def _error_type(outcome: Outcome) -> dict[str, str | None]:
    return {"errorType": outcome.error_type} if outcome.status == "error" else {}


def _tracing(trace_id: str) -> dict[str, dict[str, str]]:
    return {"tracing": {"type": "X-Amzn-Trace-Id", "value": trace_id}} if trace_id else {}


Report = TextReport | JsonReport


def report_of(log_format: str, system_log_level: str | None) -> Report:
    """The format that a function's LoggingConfig asks for."""
    return JsonReport(system_log_level) if log_format == "JSON" else TextReport()
