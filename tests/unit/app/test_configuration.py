"""Where settings come from, and that the documentation names them all."""

from pathlib import Path

import msgspec
import pytest

from stoker.app.configuration import ConfigurationError, listen_address, load_settings
from stoker.core.configuration import Settings

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "stoker.toml"
    file.write_text('region = "eu-west-1"\nsandboxes_max = 5\nidle_timeout_s = 7\n')
    environment = {"STOKER_SANDBOXES_MAX": "6", "STOKER_IDLE_TIMEOUT_S": "8", "STOKER_EGRESS": "false"}
    settings = load_settings(file=file, environment=environment, flags={"idle_timeout_s": 9, "data": None})
    assert (settings.region, settings.sandboxes_max, settings.idle_timeout_s) == ("eu-west-1", 6, 9)
    assert settings.egress is False
    assert settings.data != ""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"colour": "red"}, "unknown field `colour`"),
        ({"listen": "9797"}, "listen must be HOST:PORT"),
        ({"account": "12"}, "account must be 12 digits"),
        ({"sandboxes_max": 0}, "sandboxes_max"),
        ({"cpu_policy": "fair"}, "cpu_policy"),
        ({"access_key_id": "AKIA"}, "go together"),
        ({"tls_key": "x.pem"}, "go together"),
        ({"object_store": "https://bucket"}, "object_store must be s3://BUCKET/PREFIX"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_it(flags: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_settings(file=None, environment={}, flags=flags)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "stoker.toml"
    file.write_text("listen = ")
    with pytest.raises(ConfigurationError, match=r"stoker\.toml"):
        load_settings(file=file, environment={}, flags={})


def test_an_ipv6_address() -> None:
    settings = load_settings(file=None, environment={}, flags={"listen": "[::1]:80"})
    assert listen_address(settings) == ("::1", 80)


def test_the_document_names_every_setting() -> None:
    text = DOCUMENT.read_text()
    for field in msgspec.structs.fields(Settings):
        assert f"| `{field.name}` |" in text
