"""The platform's log lines, against lines that AWS Lambda wrote."""

import json

import pytest

from stoker.sandbox.driver import Exit
from stoker.worker import outcome
from stoker.worker.report import JsonReport, TextReport, Usage, iso_time

OK = outcome.succeeded(b"")
ID = "f8400400-dd9e-4025-b644-4c78df3287c7"
NOW_S = 1_718_000_000.123


def text(usage: Usage, result: outcome.Outcome = OK) -> str | None:
    return TextReport().report(NOW_S, ID, usage, result, "")


def test_start_and_end() -> None:
    assert TextReport().start(NOW_S, ID, "$LATEST") == f"START RequestId: {ID} Version: $LATEST\n"
    assert TextReport().end(NOW_S, ID, Usage(1, 128, 1), OK, "") == f"END RequestId: {ID}\n"


def test_report_of_a_warm_and_a_cold_start() -> None:
    assert text(Usage(2.9, 128, 36)) == (
        f"REPORT RequestId: {ID}\tDuration: 2.90 ms\tBilled Duration: 3 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 36 MB\t\n"
    )
    # Recorded in 2026: 2.37 ms and 423.98 ms of Init are billed as 427 ms.
    assert text(Usage(2.37, 1024, 95, 423.98)) == (
        f"REPORT RequestId: {ID}\tDuration: 2.37 ms\tBilled Duration: 427 ms\tMemory Size: 1024 MB\t"
        "Max Memory Used: 95 MB\tInit Duration: 423.98 ms\t\n"
    )


def test_report_of_failures() -> None:
    usage = Usage(10935.7, 1024, 1024)
    oom = outcome.exited(Exit(None, 9, oom_killed=True), ID)
    assert text(usage, oom) == (
        f"REPORT RequestId: {ID}\tDuration: 10935.70 ms\tBilled Duration: 10936 ms\tMemory Size: 1024 MB\t"
        "Max Memory Used: 1024 MB\tStatus: error\tError Type: Runtime.OutOfMemory\n"
    )
    late = text(Usage(3000.0, 128, 30), outcome.timed_out(3, ID))
    assert late is not None
    assert late.endswith("Max Memory Used: 30 MB\tStatus: timeout\n")
    posted = text(Usage(3.01, 128, 36, 110.1), outcome.failed("Runtime.Unknown", b"{}", ID))
    assert posted is not None
    assert posted.endswith("Init Duration: 110.10 ms\t\n")


@pytest.mark.parametrize(
    ("duration_ms", "init_ms", "billed_ms"),
    [(0.0, None, 0), (0.01, None, 1), (1.0, None, 1), (1.5, 1.5, 3), (2.1, 0.9, 3)],
)
def test_billed_time_is_whole_and_never_less(
    duration_ms: float, init_ms: float | None, billed_ms: int
) -> None:
    assert Usage(duration_ms, 128, 1, init_ms).billed_ms == billed_ms


def test_init_lines() -> None:
    report = TextReport()
    assert report.init_start(NOW_S, "python:3.10.v11", "arn") == (
        "INIT_START Runtime Version: python:3.10.v11\tRuntime Version ARN: arn\n"
    )
    failure = outcome.init_failed("Runtime.UserCodeSyntaxError", b"{}", "")
    assert report.init_report(NOW_S, 150.79, "init", failure) == (
        "INIT_REPORT Init Duration: 150.79 ms\tPhase: init\tStatus: error\t"
        "Error Type: Runtime.UserCodeSyntaxError\n"
    )
    assert report.init_report(NOW_S, 9999.79, "init", outcome.timed_out(10, "")) == (
        "INIT_REPORT Init Duration: 9999.79 ms\tPhase: init\tStatus: timeout\n"
    )
    assert report.init_report(NOW_S, 100, "init", OK) is None


def test_a_time_out_is_stamped_with_its_time() -> None:
    assert TextReport().fault(NOW_S, outcome.timed_out(3, ID)) == (
        f"2024-06-10T06:13:20.123Z {ID} Task timed out after 3.00 seconds\n\n"
    )
    assert iso_time(0) == "1970-01-01T00:00:00.000Z"
    assert iso_time(1_718_000_000.9999) == "2024-06-10T06:13:20.999Z"


def test_json_events() -> None:
    report = JsonReport(None)
    assert json.loads(report.start(NOW_S, ID, "$LATEST") or "") == {
        "time": "2024-06-10T06:13:20.123Z",
        "type": "platform.start",
        "record": {"requestId": ID, "version": "$LATEST"},
    }
    line = report.report(NOW_S, ID, Usage(11.642, 128, 67, 174.055), OK, "Root=1")
    assert line is not None
    assert line.endswith("}\n")
    assert json.loads(line)["record"] == {
        "requestId": ID,
        "metrics": {
            "durationMs": 11.642,
            "billedDurationMs": 186,
            "memorySizeMB": 128,
            "maxMemoryUsedMB": 67,
            "initDurationMs": 174.055,
        },
        "tracing": {"type": "X-Amzn-Trace-Id", "value": "Root=1"},
        "status": "success",
    }
    late = json.loads(report.report(NOW_S, ID, Usage(5000, 128, 94), outcome.timed_out(5, ID), "") or "")
    assert late["record"]["status"] == "timeout"
    assert "errorType" not in late["record"]


def test_json_levels_hide_what_is_below_them() -> None:
    late = outcome.timed_out(3, ID)
    usage = Usage(1, 128, 1)
    quiet, normal, chatty = JsonReport("WARN"), JsonReport("INFO"), JsonReport("DEBUG")
    assert quiet.start(NOW_S, ID, "1") is None
    assert quiet.report(NOW_S, ID, usage, OK, "") is None
    assert quiet.report(NOW_S, ID, usage, late, "") is not None
    assert normal.init_report(NOW_S, 1, "init", OK) is None
    assert chatty.init_report(NOW_S, 1, "init", OK) is not None
    assert normal.end(NOW_S, ID, usage, OK, "") is None
    done = json.loads(normal.end(NOW_S, ID, Usage(5000, 128, 1), late, "") or "")
    assert done == {
        "time": "2024-06-10T06:13:20.123Z",
        "type": "platform.runtimeDone",
        "record": {
            "requestId": ID,
            "status": "timeout",
            "metrics": {"durationMs": 5000, "producedBytes": 0},
        },
    }
    events = [json.loads(line) for line in (normal.init_report(NOW_S, 1, "init", late) or "").splitlines()]
    assert [event["type"] for event in events] == ["platform.initRuntimeDone", "platform.initReport"]


def test_extensions_that_nobody_starts_are_named() -> None:
    assert TextReport().extension(NOW_S, "agent\nEND") == (
        "EXTENSION\tName: agent?END\tState: LaunchError\tEvents: []\t"
        "Error Type: Stoker.ExternalExtensionsNotSupported\n"
    )
    assert json.loads(JsonReport("WARN").extension(NOW_S, "agent") or "")["record"] == {
        "name": "agent",
        "state": "LaunchError",
        "events": [],
        "errorType": "Stoker.ExternalExtensionsNotSupported",
    }
