"""Keys, prefixes and buckets of an object store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.store.object_keys import bucket_of, checked_key, prefix_folder

segments = st.text("abcXYZ019._=-", min_size=1, max_size=8).filter(lambda one: one not in (".", ".."))
good = st.lists(segments, min_size=1, max_size=5).map("/".join)


@given(good)
def test_keys_and_all_that_they_start_with(key: str) -> None:
    assert checked_key(key) == key
    for end in range(len(key) + 1):
        folder = prefix_folder(key[:end])
        assert key.startswith(folder)
        assert folder == "" or folder.endswith("/")
        assert "/" not in key[len(folder) : end]


@given(st.text(max_size=20))
def test_nothing_else_is_a_key(key: str) -> None:
    try:
        checked_key(key)
    except ValueError:
        return
    assert key.isascii()
    assert not any(character in key for character in "\\%?#\0\n ")
    assert all(segment not in ("", ".", "..") for segment in key.split("/"))


@pytest.mark.parametrize("prefix", ["a/./", "a/../", "../", "./", "//", "/"])
def test_prefixes_that_climb_are_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="key"):
        prefix_folder(prefix)


def test_buckets() -> None:
    assert bucket_of("s3://bucket") == ("bucket", "")
    assert bucket_of("s3://bucket/") == ("bucket", "")
    assert bucket_of("s3://bucket/some/where/") == ("bucket", "some/where")
    for url in (
        "",
        "bucket",
        "s3:/bucket",
        "s3://",
        "s3:///x",
        "http://bucket",
        "s3://bucket/../x",
        "s3://b/a b",
    ):
        with pytest.raises(ValueError, match="not "):
            bucket_of(url)
