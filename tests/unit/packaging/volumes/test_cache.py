"""LRU-2: what was used twice stays; a scan pushes out nothing that others come back to; bounds hold."""

from hypothesis import given
from hypothesis import strategies as st

from stoker.packaging.volumes.cache import TOGETHER_S, LruTwo


def test_a_scan_leaves_what_was_used_twice() -> None:
    cache: LruTwo[str, int] = LruTwo(10)
    cache.put("kept", 1, 1, 0.0)
    assert cache.get("kept", TOGETHER_S) == 1
    for number in range(100):
        cache.put(f"scan {number}", number, 1, TOGETHER_S + number)
    assert cache.get("kept", 200.0) == 1
    assert cache.evicted == 91


def test_uses_close_together_are_one() -> None:
    cache: LruTwo[str, int] = LruTwo(2)
    cache.put("read in pieces", 1, 1, 0.0)
    for piece in range(10):
        cache.get("read in pieces", piece * 0.1)
    cache.put("later", 2, 1, 5.0)
    assert cache.put("last", 3, 1, 6.0) == [("read in pieces", 1)]


def test_too_big_a_value_is_not_kept() -> None:
    cache: LruTwo[str, int] = LruTwo(2)
    cache.put("small", 1, 1, 0.0)
    assert cache.put("big", 2, 3, 1.0) == [("big", 2)]
    assert cache.get("small", 2.0) == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(1, 5)), max_size=200))
def test_the_bound_holds_and_values_are_what_was_put(steps: list[tuple[bool, int, int]]) -> None:
    cache: LruTwo[int, int] = LruTwo(16)
    put: dict[int, tuple[int, int]] = {}
    for now_s, (is_put, key, size_bytes) in enumerate(steps):
        if is_put:
            for gone, _ in cache.put(key, now_s, size_bytes, float(now_s)):
                put.pop(gone, None)
            put[key] = (now_s, size_bytes)
        elif (found := cache.get(key, float(now_s))) is not None:
            assert found == put[key][0]
        assert cache.size_bytes == sum(size for each, (_, size) in put.items() if each in cache) <= 16
