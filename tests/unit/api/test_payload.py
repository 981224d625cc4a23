"""Payloads that are no JSON, worded as AWS words them."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.api.payload import check_client_context, check_payload
from stoker.core.errors import ServiceError

PREFIX = "Could not parse request body into json: Could not parse payload into json: "
TOKENS = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')"


def place(line: int, column: int) -> str:
    source = "[Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); "
    return f"{source}line: {line}, column: {column}]"


def complaint(payload: bytes) -> str:
    with pytest.raises(ServiceError) as caught:
        check_payload(payload)
    assert caught.value.code == "InvalidRequestContentException"
    assert caught.value.message.startswith(PREFIX)
    return caught.value.message.removeprefix(PREFIX)


@pytest.mark.parametrize(
    ("payload", "message", "column"),
    [
        # The first two are answers of the real service.
        (b"n\x87r\x9e\xe9\xb5\xd7I\xee\x9bmt", "Invalid UTF-8 start byte 0x87", 3),
        (
            b"\x99\xeb,j\x07\xa1zYh",
            f"Unexpected character ((CTRL-CHAR, code 153)): expected a valid value {TOKENS}",
            1,
        ),
        (b"foo", f"Unrecognized token 'foo': was expecting {TOKENS}", 4),
        (b"bar ", f"Unrecognized token 'bar': was expecting {TOKENS}", 4),
        (b'{"a":nope}', f"Unrecognized token 'nope': was expecting {TOKENS}", 10),
        (b"NaN", f"Unrecognized token 'NaN': was expecting {TOKENS}", 4),
        (b"{a:1}", "Unexpected character ('a' (code 97)): was expecting double-quote to start field name", 2),
        (
            b'{"a" 1}',
            "Unexpected character ('1' (code 49)): was expecting a colon to separate field name and value",
            6,
        ),
        (b"[1 2]", "Unexpected character ('2' (code 50)): was expecting comma to separate Array entries", 4),
        (
            b'{"a":1 2}',
            "Unexpected character ('2' (code 50)): was expecting comma to separate Object entries",
            8,
        ),
        (
            b"{",
            f"Unexpected end-of-input: expected close marker for Object (start marker at {place(1, 1)})",
            2,
        ),
        (
            b'{"a":[1',
            f"Unexpected end-of-input: expected close marker for Array (start marker at {place(1, 6)})",
            8,
        ),
        (b'{"a', "Unexpected end-of-input in VALUE_STRING", 4),
        (b"01", "Invalid numeric value: Leading zeroes not allowed", 2),
        (
            b'"\x01"',
            "Illegal unquoted character ((CTRL-CHAR, code 1)): has to be escaped using backslash to be "
            "included in string value",
            2,
        ),
        (b'"\\x"', "Unrecognized character escape 'x' (code 120)", 3),
        (b'{"a":"\xff"}', "Invalid UTF-8 start byte 0xff", 8),
        (b"  ", "No content to map due to end-of-input", 3),
    ],
)
def test_wording(payload: bytes, message: str, column: int) -> None:
    assert complaint(payload) == f"{message}\n at {place(1, column)}"


def test_lines_are_counted() -> None:
    assert complaint(b'{\n "a": 1,\n b}').endswith(place(3, 2))


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b" [1, 2]\n", b'"\\ud800"', '"ä€😀"'.encode(), b"null", b"1e999", b"-0.5E+3"]
)
def test_json_passes(payload: bytes) -> None:
    check_payload(payload)


@given(st.binary(max_size=40))
def test_agrees_with_another_parser(payload: bytes) -> None:
    """Whatever passes, a runtime can read; and nothing ends in another error than the modelled one."""
    try:
        check_payload(payload)
    except ServiceError:
        return
    assert not payload or json.loads(payload.decode()) is not ...


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=8,
    ),
    st.integers(1, 20),
)
def test_broken_off_json_is_refused_or_still_json(value: object, cut: int) -> None:
    whole = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    for payload in (whole, whole[:-cut]):
        try:
            check_payload(payload)
        except ServiceError:
            with pytest.raises((ValueError, UnicodeDecodeError)):
                json.loads(payload.decode())


def test_deep_nesting() -> None:
    assert "nesting depth" in complaint(b"[" * 100_000)


def test_a_large_broken_payload_is_refused_quickly() -> None:
    assert complaint(b'{"a":"' + b"x" * 6_000_000).startswith("Unexpected end-of-input")


def test_client_context() -> None:
    check_client_context(base64.b64encode(b'{"custom":{}}'))
    for bad in (b"***", base64.b64encode(b"[]"), base64.b64encode(b"{"), base64.b64encode(b"\xff")):
        with pytest.raises(ServiceError, match="Client context must be a valid Base64-encoded JSON object"):
            check_client_context(bad)
    with pytest.raises(ServiceError, match="at most 3583 bytes"):
        check_client_context(b"A" * 3584)
