"""Filter criteria: the documented examples as a table, and laws that hold for every pattern and record."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.control.filter_patterns import is_filter_pattern
from stoker.events.filters import compile_filters, compile_pattern

TABLE = [
    ({"a": [1]}, {"a": 1}, True),
    ({"a": [1]}, {"a": 1.0}, True),
    ({"a": [1]}, {"a": True}, False),
    ({"a": ["1"]}, {"a": 1}, False),
    ({"a": [None]}, {"a": None}, True),
    ({"a": [None]}, {}, False),
    ({"a": [""]}, {"a": ""}, True),
    ({"a": ["x", "y"]}, {"a": "y"}, True),
    ({"a": ["x"], "b": ["y"]}, {"a": "x", "b": "z"}, False),
    ({"a": ["x"]}, {"a": ["w", "x"]}, True),
    ({"a": {"b": ["x"]}}, {"a": {"b": "x"}}, True),
    ({"a": {"b": ["x"]}}, {"a": [{"b": "w"}, {"b": "x"}]}, True),
    ({"a": {"b": ["x"]}}, {"a": "x"}, False),
    ({"a": [{"prefix": "ab"}]}, {"a": "abc"}, True),
    ({"a": [{"prefix": "ab"}]}, {"a": "cab"}, False),
    ({"a": [{"prefix": {"equals-ignore-case": "AB"}}]}, {"a": "abc"}, True),
    ({"a": [{"suffix": "bc"}]}, {"a": "abc"}, True),
    ({"a": [{"suffix": {"equals-ignore-case": "BC"}}]}, {"a": "abc"}, True),
    ({"a": [{"equals-ignore-case": "ABC"}]}, {"a": "abc"}, True),
    ({"a": [{"anything-but": ["x", "y"]}]}, {"a": "z"}, True),
    ({"a": [{"anything-but": ["x", "y"]}]}, {"a": "x"}, False),
    ({"a": [{"anything-but": ["x"]}]}, {}, False),
    ({"a": [{"anything-but": {"prefix": "x"}}]}, {"a": "xy"}, False),
    ({"a": [{"anything-but": 3}]}, {"a": 4}, True),
    ({"a": [{"numeric": ["=", 1]}]}, {"a": 1}, True),
    ({"a": [{"numeric": [">", 1, "<=", 3]}]}, {"a": 3}, True),
    ({"a": [{"numeric": [">", 1, "<=", 3]}]}, {"a": 1}, False),
    ({"a": [{"numeric": [">", 1]}]}, {"a": "2"}, False),
    ({"a": [{"exists": True}]}, {"a": None}, True),
    ({"a": [{"exists": True}]}, {"a": {"b": 1}}, False),
    ({"a": [{"exists": False}]}, {"b": 1}, True),
    ({"a": [{"exists": False}]}, {"a": 1}, False),
    ({"$or": [{"a": [1]}, {"b": [2]}]}, {"b": 2}, True),
    ({"$or": [{"a": [1]}, {"b": [2]}], "c": [3]}, {"b": 2}, False),
    ({}, {"a": 1}, True),
]


@pytest.mark.parametrize(("pattern", "record", "matched"), TABLE)
def test_the_documented_rules(pattern: Any, record: Any, matched: bool) -> None:
    assert is_filter_pattern(json.dumps(pattern))
    assert compile_pattern(pattern)(record) is matched


NAMES = st.sampled_from(["a", "b", "$or"])
TEXTS = st.sampled_from(["", "a", "A", "ab", "b"])
NUMBERS = st.sampled_from([0, 1, 1.0, 2.5, -1])
LEAVES = st.one_of(TEXTS, NUMBERS, st.booleans(), st.none())
RECORDS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
AFFIXES = TEXTS | st.fixed_dictionaries({"equals-ignore-case": TEXTS})
SIGNS = st.sampled_from(["=", "<", "<=", ">", ">="])
RULES = st.one_of(
    LEAVES,
    st.fixed_dictionaries({"prefix": AFFIXES}),
    st.fixed_dictionaries({"suffix": AFFIXES}),
    st.fixed_dictionaries({"equals-ignore-case": TEXTS}),
    st.fixed_dictionaries({"exists": st.booleans()}),
    st.fixed_dictionaries({"anything-but": TEXTS | NUMBERS | st.lists(TEXTS | NUMBERS, min_size=1)}),
    st.fixed_dictionaries({"anything-but": st.fixed_dictionaries({"prefix": TEXTS})}),
    st.builds(lambda sign, number: {"numeric": [sign, number]}, SIGNS, NUMBERS),
)
FIELDS = st.dictionaries(st.sampled_from(["a", "b"]), st.lists(RULES, min_size=1, max_size=3), max_size=2)
PATTERNS = st.recursive(
    FIELDS,
    lambda inner: (
        st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
        | st.fixed_dictionaries({"$or": st.lists(inner, min_size=2, max_size=3)})
    ),
    max_leaves=4,
)


@given(PATTERNS, RECORDS)
def test_whatever_is_accepted_compiles_and_answers_for_every_record(pattern: Any, record: Any) -> None:
    assert is_filter_pattern(json.dumps(pattern))
    assert compile_pattern(pattern)(record) in (True, False)


@given(PATTERNS, PATTERNS, RECORDS)
def test_several_filters_and_or_are_the_union(first: Any, second: Any, record: Any) -> None:
    either = compile_pattern(first)(record) or compile_pattern(second)(record)
    assert compile_pattern({"$or": [first, second]})(record) is either
    both = compile_filters([json.dumps(first), json.dumps(second)])
    assert both is not None
    assert both(record) is either


@given(LEAVES, LEAVES)
def test_anything_but_is_the_complement_of_equality(value: Any, barred: Any) -> None:
    equal = compile_pattern({"a": [barred]})({"a": value})
    assert compile_pattern({"a": [{"anything-but": [barred]}]})({"a": value}) is not equal


@given(st.dictionaries(st.sampled_from(["a", "b"]), LEAVES, min_size=1))
def test_a_record_matches_itself(record: dict[str, Any]) -> None:
    assert compile_pattern({name: [value] for name, value in record.items()})(record) is True
    assert compile_pattern({name: [{"exists": False}] for name in record})(record) is False


def test_no_filter_is_none_at_all() -> None:
    assert compile_filters([]) is None


@pytest.mark.parametrize("pattern", [3, {"a": 1}, {"a": []}, {"a": [{"unheard": 1}]}])
def test_what_is_no_pattern_does_not_compile(pattern: Any) -> None:
    with pytest.raises(ValueError, match=r"pattern|rule|operator"):
        compile_pattern(pattern)
