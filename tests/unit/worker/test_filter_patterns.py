"""Filter patterns, with the examples of the CloudWatch Logs user guide."""

import pytest

from stoker.worker.filter_patterns import UnsupportedPattern, compile_pattern

LINES = [
    "[ERROR 400] BAD REQUEST",
    "[ERROR 401] UNAUTHORIZED REQUEST",
    "[ERROR 419] MISSING ARGUMENTS",
    "[WARN] ok",
]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("", [0, 1, 2, 3]),
        ("ERROR", [0, 1, 2]),
        ("error", []),
        ("ERROR ARGUMENTS", [2]),
        ('"UNAUTHORIZED REQUEST"', [1]),
        ('"BAD REQUEST" ERROR', [0]),
        ("?WARN ?419", [2, 3]),
        ("ERROR -401", [0, 2]),
        ('-"BAD REQUEST"', [1, 2, 3]),
        ("ERROR ?419", [0, 1, 2]),
        ('"\\"quoted\\""', []),
    ],
)
def test_terms(pattern: str | None, expected: list[int]) -> None:
    matches = compile_pattern(pattern)
    assert [at for at, line in enumerate(LINES) if matches(line)] == expected


DOCUMENT = (
    '{"eventType":"UpdateTrail","sourceIPAddress":"111.111.111.111","arrayKey":["value","another"],'
    '"objectList":[{"name":"a","id":1},{"name":"b","id":2}],"size":3.5,"none":null,"yes":true,"no":false,"t":"5"}'
)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ('{ $.eventType = "UpdateTrail" }', True),
        ("{ $.eventType = UpdateTrail }", True),
        ('{$.eventType="UpdateTrail"}', True),
        ('{ $.eventType = "Other" }', False),
        ('{ $.eventType != "Other" }', True),
        ('{ $.missing != "Other" }', False),
        ('{ $.sourceIPAddress != "123.123.*" }', True),
        ('{ $.sourceIPAddress = "111.*" }', True),
        ('{ $.sourceIPAddress = "*.111" }', True),
        ('{ $.sourceIPAddress = "1*1*1*1*1" }', True),
        ('{ $.arrayKey[0] = "value" }', True),
        ('{ $.arrayKey[5] = "value" }', False),
        ("{ $.objectList[1].id = 2 }", True),
        ('{ $["eventType"] = "UpdateTrail" }', True),
        ("{ $.size > 3 }", True),
        ("{ $.size >= 3.5 }", True),
        ("{ $.size < 3.5 }", False),
        ("{ $.size <= 3 }", False),
        ("{ $.size = 3.5 }", True),
        ("{ $.size != 4 }", True),
        ("{ $.t = 5 }", False),
        ("{ $.yes > 0 }", False),
        ("{ $.none IS NULL }", True),
        ("{ $.missing IS NULL }", False),
        ("{ $.missing NOT EXISTS }", True),
        ("{ $.eventType EXISTS }", True),
        ("{ $.yes IS TRUE }", True),
        ("{ $.no IS FALSE }", True),
        ("{ $.no IS TRUE }", False),
        ('{ ($.size > 3) && ($.eventType = "UpdateTrail") }', True),
        ("{ $.size > 9 && $.yes IS TRUE || $.no IS FALSE }", True),
        ("{ $.size > 9 && ($.yes IS TRUE || $.no IS FALSE) }", False),
    ],
)
def test_json(pattern: str, expected: bool) -> None:
    assert compile_pattern(pattern)(DOCUMENT) is expected


@pytest.mark.parametrize("message", ["no json", "[1]", "3", "", '{"eventType":'])
def test_what_is_no_json_object_never_matches(message: str) -> None:
    assert not compile_pattern('{ $.eventType != "x" }')(message)


@pytest.mark.parametrize(
    "pattern",
    [
        '"open',
        "[ip, user]",
        "%ERR.*%",
        "{ $.a = 1",
        "{ }",
        "{ level = 1 }",
        "{ $.a }",
        "{ $.a = }",
        "{ $.a ~ 1 }",
        '{ $.a > "text" }',
        "{ $.a = %x% }",
        "{ ($.a = 1 }",
        "{ $.a = 1 ) }",
        "{ $.a IS ODD }",
        "{ " + "(" * 500 + "$.a = 1" + ")" * 500 + " }",
        "x" * 1025,
    ],
)
def test_what_is_not_understood_is_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern):
        compile_pattern(pattern)
