"""The last 4 KB of a log."""

from hypothesis import given
from hypothesis import strategies as st

from stoker.worker.tail import Tail


def take(messages: list[str]) -> bytes:
    tail = Tail()
    for message in messages:
        tail.append(message)
    return tail.take()


def test_a_short_log_is_whole_and_taken_once() -> None:
    tail = Tail()
    tail.append("a\n")
    tail.append("b")
    assert tail.take() == b"a\nb"
    assert tail.take() == b""


def test_a_long_one_is_cut_at_the_front() -> None:
    assert take(["x" * 5000, "y" * 10]) == b"x" * 4086 + b"y" * 10


@given(st.lists(st.text(max_size=3000), max_size=12))
def test_it_is_the_end_of_everything(messages: list[str]) -> None:
    whole = "".join(messages).encode("utf-8", "replace")
    tail = take(messages)
    assert whole.endswith(tail)
    assert len(tail) <= 4096
    # Short only by a character that would have been cut.
    assert len(tail) == len(whole) if len(whole) <= 4096 else len(tail) >= 4093
    tail.decode()


def test_memory_is_bounded_whatever_comes() -> None:
    tail = Tail()
    for _ in range(10_000):
        tail.append("x" * 100)
    assert len(tail._messages) < 50
