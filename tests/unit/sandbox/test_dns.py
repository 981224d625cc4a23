"""The pure parts of the DNS forwarder: messages, resolv.conf, shares."""

import os
from pathlib import Path

import pytest

from stoker.sandbox.dns_forwarder import Shares
from stoker.sandbox.dns_messages import framed, is_answer, is_query, server_failure, with_id
from stoker.sandbox.dns_resolvers import DEFAULT, Resolvers, parse_resolv_conf

QUERY = bytes.fromhex("1234 0120 0001 0000 0000 0000") + b"\x01a\x00\x00\x01\x00\x01"
ANSWER = bytes.fromhex("1234 8180 0001 0000 0000 0000") + b"\x01a\x00\x00\x01\x00\x01"


def test_a_query_is_told_from_an_answer_and_from_junk() -> None:
    assert is_query(QUERY)
    assert not is_query(ANSWER)
    assert not is_query(QUERY[:11])
    assert not is_query(b"")


def test_an_answer_has_the_id_that_was_asked_with() -> None:
    assert is_answer(ANSWER, b"\x12\x34")
    assert not is_answer(ANSWER, b"\x12\x35")
    assert not is_answer(QUERY, b"\x12\x34")
    assert not is_answer(ANSWER[:11], b"\x12\x34")


def test_only_the_id_changes() -> None:
    assert with_id(QUERY, b"\xab\xcd") == b"\xab\xcd" + QUERY[2:]
    assert framed(b"abc") == b"\x00\x03abc"


def test_a_failure_repeats_the_question_and_is_no_longer_than_it() -> None:
    failure = server_failure(QUERY)
    assert len(failure) == len(QUERY)
    assert is_answer(failure, QUERY[:2])
    assert failure[2] & 1, "recursion desired is repeated"
    assert failure[3] & 0x0F == 2
    assert failure[4:] == QUERY[4:]


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("nameserver 127.0.0.53\noptions edns0\nsearch a.example\n", ("127.0.0.53",)),
        ("  nameserver\t10.0.0.1  # home\nnameserver ::1\n", ("10.0.0.1", "::1")),
        ("nameserver fe80::1%eth0\n", ("fe80::1%eth0",)),
        ("#nameserver 10.0.0.1\n;nameserver 10.0.0.2\nnameserver resolver.example\nnameserver\n", DEFAULT),
        ("", DEFAULT),
        ("".join(f"nameserver 10.0.0.{i}\n" for i in range(9)), ("10.0.0.0", "10.0.0.1", "10.0.0.2")),
    ],
)
def test_resolv_conf_names_the_resolvers(text: str, addresses: tuple[str, ...]) -> None:
    assert parse_resolv_conf(text) == addresses


def test_a_changed_or_replaced_file_is_read_again(tmp_path: Path) -> None:
    file, replacement = tmp_path / "resolv.conf", tmp_path / "new"
    resolvers = Resolvers(file)
    assert resolvers.current() == DEFAULT
    file.write_text("nameserver 10.0.0.1\n")
    assert resolvers.current() == ("10.0.0.1",)
    file.write_text("nameserver 10.0.0.2\n")
    os.utime(file, ns=(1, 1))
    assert resolvers.current() == ("10.0.0.2",)
    replacement.write_text("nameserver 10.0.0.3\n")
    os.utime(replacement, ns=(1, 1))
    replacement.rename(file)
    assert resolvers.current() == ("10.0.0.3",)
    file.unlink()
    assert resolvers.current() == DEFAULT


def test_places_are_limited_in_all_and_for_each_source() -> None:
    shares = Shares(places=3, places_per_source=2)
    assert [shares.take("a") for _ in range(3)] == [True, True, False]
    assert [shares.take("b") for _ in range(2)] == [True, False]
    shares.give("a")
    assert shares.take("b")
    assert not shares.take("a")
    for source in ("a", "b", "b"):
        shares.give(source)
    assert [shares.take("c") for _ in range(2)] == [True, True]
