"""No pattern of the models can be made to work for long by what a caller sends."""

import time

from stoker.api.model import compile_service
from stoker.api.shapes import Rule

LONGEST = 100_000
# Generous: what explodes takes minutes, what does not takes microseconds.
ALLOWED_S = 1.0


def rules() -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    waiting = [o.rule for name in ("lambda", "logs") for o in compile_service(name).operations.values()]
    while waiting:
        rule = waiting.pop()
        if rule.name not in found:
            found[rule.name] = rule
            waiting += [m.rule for m in rule.members] + [r for r in (rule.element, rule.key) if r is not None]
    return found


def test_near_misses_are_refused_quickly() -> None:
    patterns = [rule for rule in rules().values() if rule.pattern is not None]
    assert len(patterns) > 50
    for rule in patterns:
        assert rule.pattern is not None
        length = int(min(rule.maximum or LONGEST, LONGEST))
        for piece in ("a", "0", "-", "a-", "aA0-", "/a", " ", "arn:aws:lambda:"):
            started = time.perf_counter()
            rule.pattern.fullmatch((piece * length)[: length - 1] + "\0")
            assert time.perf_counter() - started < ALLOWED_S, (rule.name, piece)
