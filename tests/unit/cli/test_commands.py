"""The commands themselves: flags made from the settings, what is refused before anything is asked."""

import socket
import subprocess
import sys

import msgspec
import pytest
import typer

from stoker.app.configuration import ConfigurationError
from stoker.app.launch import SECRET_SETTINGS
from stoker.cli import up
from stoker.cli.dependencies import BuildError
from stoker.cli.deploy import changes, code_sha256, function_name, variables
from stoker.cli.main import app
from stoker.core.configuration import Settings


def test_every_setting_has_a_flag_except_secrets() -> None:
    command = typer.main.get_command(app).commands["up"]  # type: ignore[attr-defined]
    flags = {option for parameter in command.params for option in parameter.opts}
    for name in Settings.__struct_fields__:
        assert (f"--{name.replace('_', '-')}" in flags) == (name not in SECRET_SETTINGS), name
    assert "--config" in flags
    assert "--secret-access-key" not in flags


def test_a_flag_that_is_not_given_leaves_the_setting_alone() -> None:
    assert all(parameter.default is None for parameter in up.parameters())


def test_flags_tell_their_default() -> None:
    listen = next(parameter for parameter in up.parameters() if parameter.name == "listen")
    assert "[default: 127.0.0.1:9797]" in listen.annotation.__metadata__[0].help


def test_an_address_in_use_is_refused_before_the_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = msgspec.structs.replace(Settings(), listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ConfigurationError, match="choose another with --listen"):
            up.check_address(settings)


def test_variables() -> None:
    assert variables(["AB=c", "CD=", "EF=a=b c"]) == {"AB": "c", "CD": "", "EF": "a=b c"}
    for wrong in ("AB", "=x", "1A=x", "A-B=x", "A=x"):
        with pytest.raises(typer.BadParameter):
            variables([wrong])


def test_names() -> None:
    assert function_name(None, "thumbnail") == "thumbnail"
    assert function_name("given", "a b") == "given"
    with pytest.raises(BuildError, match="--name"):
        function_name(None, "a b")


def test_only_what_differs_is_changed() -> None:
    current = {"MemorySize": 128, "Timeout": 3, "Environment": {"Variables": {"AB": "1"}}}
    assert changes({"MemorySize": 128, "Environment": {"Variables": {"AB": "1"}}}, current) == {}
    assert changes({"MemorySize": 256, "Timeout": 3}, current) == {"MemorySize": 256}


def test_code_sha256_as_lambda_gives_it() -> None:
    assert code_sha256(b"") == "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    program = "import sys, stoker.cli.main; print([m for m in ('boto3', 'botocore', 'rich', 'http.client') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
