"""Names of images: what is one, what is none, and that nothing is guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.packaging.oci.references import REFERENCE_MAX, Reference, parse_local_name, parse_reference
from stoker.services.images import ImageRefused

DIGEST = "sha256:" + "0f" * 32


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("registry.example.com/app", Reference("registry.example.com", "app", "latest")),
        ("registry.example.com/team/app:1.2-x", Reference("registry.example.com", "team/app", "1.2-x")),
        ("127.0.0.1:5000/app:v", Reference("127.0.0.1:5000", "app", "v")),
        ("localhost/app", Reference("localhost", "app", "latest")),
        ("[::1]:5000/a/b", Reference("[::1]:5000", "a/b", "latest")),
        (f"r.io/a@{DIGEST}", Reference("r.io", "a", None, DIGEST)),
        (f"r.io/a:tag@{DIGEST}", Reference("r.io", "a", "tag", DIGEST)),
        ("REGISTRY.Example.com/a__b/c-d.e", Reference("registry.example.com", "a__b/c-d.e", "latest")),
        (
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/app:1",
            Reference("123456789012.dkr.ecr.us-east-1.amazonaws.com", "app", "1"),
        ),
        ("local/app:1", Reference("local", "app", "1")),
        ("local/team/app", Reference("local", "team/app", "latest")),
    ],
)
def test_names_of_images(uri: str, expected: Reference) -> None:
    assert parse_reference(uri) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "app",
        "library/app:1",
        "app:1",
        "registry.example.com/",
        "registry.example.com",
        "registry.example.com/App",
        "registry.example.com/a//b",
        "registry.example.com/a/../b",
        "registry.example.com/a_",
        "registry.example.com/a:",
        "registry.example.com/a:" + "t" * 129,
        "registry.example.com/a:-x",
        "registry.example.com/a@",
        "registry.example.com/a@sha256:00",
        "registry.example.com/a@sha256:" + "G" * 64,
        "registry.example.com/a@sha512:" + "0" * 128,
        f"registry.example.com/a@{DIGEST}@{DIGEST}",
        "https://registry.example.com/a",
        "user:password@registry.example.com/a",
        "registry.example.com:notaport/a",
        "registry.example.com:123456/a",
        "registry.example.com/a\n",
        "registry.example.com/a?x=1",
        "registry.example.com/a%2e",
        "-registry.example.com/a",
        "r.io/" + "a" * 256,
        "r.io/" + "a" * REFERENCE_MAX,
        "local",
        "local:5000/",
    ],
)
def test_what_is_no_name_is_refused(uri: str) -> None:
    with pytest.raises(ImageRefused) as refused:
        parse_reference(uri)
    assert refused.value.kind == "invalid"


def test_a_refusal_repeats_no_endless_name() -> None:
    with pytest.raises(ImageRefused) as refused:
        parse_reference("r.io/" + "a" * 100_000)
    assert len(str(refused.value)) < 500


@given(st.text(max_size=80))
def test_whatever_is_parsed_reads_the_same_again(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ImageRefused:
        return
    assert parse_reference(str(reference)).repository == reference.repository


def test_by_digest_it_names_the_repository_without_the_tag() -> None:
    assert str(parse_reference("r.io/a:1").at(DIGEST)) == f"r.io/a@{DIGEST}"


def test_names_on_the_command_line() -> None:
    assert (
        parse_local_name("app") == parse_local_name("local/app:latest") == Reference("local", "app", "latest")
    )
    with pytest.raises(ImageRefused):
        parse_local_name("App")
    with pytest.raises(ImageRefused):
        parse_local_name(f"app@{DIGEST}")
