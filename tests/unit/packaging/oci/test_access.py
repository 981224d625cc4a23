"""Challenges, credentials, hosts: what is read from headers and files, and that secrets are not shown."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.packaging.oci.registry.access import (
    Credentials,
    RegistrySettings,
    api_host,
    api_name,
    credentials_of,
    is_loopback,
    registry_settings,
)
from stoker.packaging.oci.registry.challenges import Challenge, parse_challenges
from stoker.packaging.oci.registry.client import BACK_OFF_MAX_S, RETRY_AFTER_MAX_S, pause_s
from stoker.services.images import ImageRefused

AUTH = {"auth": base64.b64encode(b"me:se:cret").decode()}


def settings(folder: Path, document: Any) -> RegistrySettings:
    file = folder / "config.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return RegistrySettings(config_file=file)


def test_challenges() -> None:
    bearer = 'Bearer realm="https://auth.example.com/token",service="a \\"b\\"", scope=repository:x:pull'
    assert parse_challenges([bearer]) == [
        Challenge(
            "bearer",
            {"realm": "https://auth.example.com/token", "service": 'a "b"', "scope": "repository:x:pull"},
        )
    ]
    assert [each.scheme for each in parse_challenges(["Negotiate, Basic realm=x", 'DIGEST realm="y"'])] == [
        "negotiate",
        "basic",
        "digest",
    ]
    assert parse_challenges(["", ",,,", '"']) == []


@given(st.lists(st.text(alphabet='aB= ",\\;', max_size=60), max_size=3))
def test_any_challenge_is_read_without_end(headers: list[str]) -> None:
    assert len(parse_challenges(headers)) <= 8


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("localhost", True),
        ("localhost:80", True),
        ("a.localhost:5000", True),
        ("10.0.0.1:5000", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("[fe80::1]:5000", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_docker_hub_has_names_of_its_own() -> None:
    assert (api_host("docker.io"), api_name("docker.io", "python")) == (
        "registry-1.docker.io",
        "library/python",
    )
    assert (api_host("r.io"), api_name("r.io", "python")) == ("r.io", "python")


def test_credentials_by_host(tmp_path: Path) -> None:
    config = settings(
        tmp_path,
        {
            "auths": {
                "r.io": AUTH,
                "https://s.io": {"username": "u", "password": "p"},
                "https://index.docker.io/v1/": AUTH,
                "t.io:5000": {"identitytoken": "x"},
            },
            "HttpHeaders": {"X": "y"},
        },
    )
    assert credentials_of(config, "r.io") == Credentials("me", "se:cret")
    assert credentials_of(config, "s.io") == Credentials("u", "p")
    assert credentials_of(config, "docker.io") == Credentials("me", "se:cret")
    assert credentials_of(config, "t.io:5000") == Credentials(refresh_token="x")
    assert credentials_of(config, "t.io") is None
    assert credentials_of(RegistrySettings(), "r.io") is None


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"credsStore": "desktop"}, "helper"),
        ({"credHelpers": {"r.io": "ecr-login"}}, "helper"),
        ({"auths": {"r.io": {}}, "credsStore": "desktop"}, "helper"),
        ({"auths": {"r.io": {"auth": "not base64 secret"}}}, "base64"),
        ({"auths": {"r.io": {"auth": base64.b64encode(b"secret").decode()}}}, "base64"),
        ({"auths": ["secret"]}, "not a docker config.json"),
        ('{"secret', "not a docker config.json"),
        (" " * (1024 * 1024 + 1), "bytes"),
    ],
)
def test_configurations_that_cannot_be_used_say_so_without_a_secret(
    tmp_path: Path, document: Any, says: str
) -> None:
    with pytest.raises(ImageRefused, match=says) as refused:
        credentials_of(settings(tmp_path, document), "r.io")
    assert refused.value.kind == "denied"
    assert "secret" not in str(refused.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match="No such file"):
        credentials_of(RegistrySettings(config_file=tmp_path / "none.json"), "r.io")


def test_credentials_are_not_shown() -> None:
    assert "secret" not in repr(Credentials("user", "secret", "secret", "secret"))
    assert "secret" not in str(Credentials("user", "secret"))


def test_settings_as_they_are_written() -> None:
    made = registry_settings("/a", "", "R.io:5000, s.io", "")
    assert made.config_file == Path("/a")
    assert (made.ca_file, made.plain_http, made.allowed) == (
        None,
        frozenset({"r.io:5000", "s.io"}),
        frozenset(),
    )


def test_pauses_grow_and_are_bounded() -> None:
    assert pause_s(1) < pause_s(3) < pause_s(5)
    assert pause_s(50) <= BACK_OFF_MAX_S * 1.25
    assert pause_s(1, 3.0) == 3.0
    assert pause_s(1, 99999.0) == RETRY_AFTER_MAX_S
