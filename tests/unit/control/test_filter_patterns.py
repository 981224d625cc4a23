"""Filter patterns: which could be matched."""

import json
from typing import Any

import pytest

from stoker.control.filter_patterns import DEPTH_MAX, is_filter_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        {},
        {"body": {"a": ["x", 1, None, True]}},
        {"a": [{"prefix": "x"}, {"suffix": {"equals-ignore-case": "x"}}]},
        {"a": [{"anything-but": ["x", 1]}, {"anything-but": {"prefix": "x"}}, {"exists": False}]},
        {"a": [{"numeric": [">", 0, "<=", 5]}], "b": [{"numeric": ["=", 3.5]}]},
        {"$or": [{"a": ["x"]}, {"b": {"c": [{"equals-ignore-case": "x"}]}}]},
    ],
)
def test_these_could(pattern: Any) -> None:
    assert is_filter_pattern(json.dumps(pattern))


@pytest.mark.parametrize(
    "pattern",
    [
        *(None, "x", 1, [], ["x"], {"a": "x"}, {"a": 1}, {"a": []}, {"a": [[]]}, {"a": {"b": "x"}}),
        *(
            {"a": [{}]},
            {"a": [{"prefix": 1}]},
            {"a": [{"prefix": "x", "suffix": "y"}]},
            {"a": [{"like": "x"}]},
        ),
        *({"a": [{"numeric": []}]}, {"a": [{"numeric": ["=", "3"]}]}, {"a": [{"numeric": ["~", 3]}]}),
        *({"a": [{"numeric": [">", 0, "<"]}]}, {"a": [{"exists": "yes"}]}, {"a": [{"anything-but": []}]}),
        *({"$or": [{"a": ["x"]}]}, {"$or": [{"a": "x"}, {"b": ["y"]}]}),
    ],
)
def test_these_could_not(pattern: Any) -> None:
    assert not is_filter_pattern(json.dumps(pattern))


def test_depth_is_bounded_and_text_must_be_json() -> None:
    assert is_filter_pattern('{"a":' * DEPTH_MAX + "{}" + "}" * DEPTH_MAX) is False
    assert not is_filter_pattern('{"a":' * 100_000)
    for text in (None, "", "{", "nonsense", "{'a': ['x']}"):
        assert not is_filter_pattern(text)
