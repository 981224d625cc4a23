"""How things are shown: sizes, ages, tables, log lines, errors."""

import errno

import pytest
import typer
from botocore.exceptions import ClientError, EndpointConnectionError

from stoker.app.configuration import ConfigurationError
from stoker.app.host import Finding
from stoker.cli.doctor import found_and_consequence, verdict
from stoker.cli.env import exports
from stoker.cli.failures import explain
from stoker.cli.functions import row
from stoker.cli.invoke import answer_record
from stoker.cli.logs import event_line, look_back_s
from stoker.cli.output import age, size, table_lines
from stoker.core.access import Access


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KB"), (52_428_800, "50.0 MB"), (3 * 2**40, "3072.0 GB")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (59.9, "59s"), (75, "1m15s"), (3600, "1h00m"), (90_000, "1d01h")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_a_table_is_aligned_and_has_no_blanks_at_the_end() -> None:
    assert table_lines([("A", "LONG", "C"), ("xxx", "y", "")], None) == ["A    LONG  C", "xxx  y"]


def test_the_last_column_wraps_between_words_and_below_itself() -> None:
    lines = table_lines(
        [("K", "V"), ("a", "one two three four five six /a/path/longer/than/the/column/is")], 30
    )
    assert lines == ["K  V", "a  one two three four five six", "   /a/path/longer/than/the/column/is"]


def test_a_terminal_too_narrow_for_columns_does_the_wrapping_itself() -> None:
    assert table_lines([("KEY", "one two three four five six seven")], 20) == [
        "KEY  one two three four five six seven"
    ]


def test_a_cell_may_have_lines_of_its_own() -> None:
    cell = found_and_consequence(Finding("degraded", "/tmp", "tmpfs", "counts as memory"))
    assert table_lines([("degraded", cell)], None) == ["degraded  tmpfs", "          → counts as memory"]


def test_the_verdict_is_the_worst_finding() -> None:
    ok, less, none = (Finding(verdict, "x", "y") for verdict in ("ok", "degraded", "missing"))
    assert verdict([ok]) == "everything is here"
    assert "degraded" in verdict([ok, less])
    assert "cannot run" in verdict([none, less])


def test_times_to_look_back() -> None:
    assert [look_back_s(text) for text in ("90s", "1.5m", "2h", "1d")] == [90, 90, 7200, 86_400]
    for wrong in ("", "5", "m", "-1h", "1 h", "1w"):
        with pytest.raises(typer.BadParameter):
            look_back_s(wrong)


def test_a_log_line() -> None:
    assert event_line({"timestamp": 1_700_000_000_123, "message": "a\n"}) == "2023-11-14 22:13:20.123 a"


def test_a_result_that_is_not_json_is_kept_byte_for_byte() -> None:
    assert answer_record({"StatusCode": 200}, b'{"a":1}', "")["Payload"] == {"a": 1}
    raw = answer_record({"StatusCode": 200}, b"\xff", "")
    assert (raw["Payload"], raw["PayloadBase64"]) == (None, "/w==")


def test_exports_never_name_the_global_endpoint() -> None:
    reach = Access(
        endpoint="http://h:1",
        account="123456789012",
        region="eu-west-1",
        access_key_id="k",
        secret_access_key="s",
    )
    variables = exports(reach)
    assert "AWS_ENDPOINT_URL" not in variables
    assert variables["AWS_ENDPOINT_URL_LAMBDA"] == "http://h:1"
    assert variables["AWS_ACCOUNT_ID"] == "123456789012"


def test_rows_say_why_a_function_is_not_active() -> None:
    function = {
        "FunctionName": "f",
        "MemorySize": 128,
        "Timeout": 3,
        "CodeSize": 1024,
        "LastModified": "2026-11-24T12:08:01.123+0000",
        "State": "Failed",
        "StateReason": "no room",
    }
    assert row(function) == (
        *("f", "image", "128 MB", "3 s", "1.0 KB"),
        *("2026-11-24 12:08:01", "Failed: no room"),
    )
    assert row({**function, "State": "Active", "LastUpdateStatus": "Failed"})[-1] == "Active, update Failed"


def test_failures() -> None:
    missing = ClientError(
        {"Error": {"Code": "ResourceNotFoundException", "Message": "Function not found: arn"}}, "Invoke"
    )
    shown = explain(missing)
    assert shown is not None
    assert (shown.code, shown.message, shown.exit_code) == (
        "ResourceNotFoundException",
        "Function not found: arn",
        1,
    )
    assert "stoker list" in shown.hint
    unreachable = explain(EndpointConnectionError(endpoint_url="http://x"))
    assert unreachable is not None
    assert "stoker up" in unreachable.hint
    bad = explain(ConfigurationError("listen"))
    assert bad is not None
    assert bad.exit_code == 78
    file = explain(FileNotFoundError(errno.ENOENT, "No such file or directory", "x.json"))
    assert file is not None
    assert file.message == "x.json: No such file or directory"
    assert explain(ValueError("a defect")) is None
