"""The checked-in records are what the generator makes of botocore's models."""

import re
from pathlib import Path

import botocore
import msgspec
import pytest

import stoker.services
from stoker.api.generate import generate
from stoker.services import lambda_types, logs_types


@pytest.mark.parametrize("service", ["lambda", "logs"])
def test_checked_in_records_match_the_model(service: str) -> None:
    checked_in = (Path(stoker.services.__file__).parent / f"{service}_types.py").read_text()
    version = re.search(r"^# botocore (\S+)$", checked_in, re.MULTILINE)
    assert version is not None
    if version[1] != botocore.__version__:
        pytest.skip(f"generated with botocore {version[1]}, botocore {botocore.__version__} is installed")
    assert generate(service) == checked_in


def test_every_record_can_be_decoded() -> None:
    """msgspec resolves annotations lazily; a wrong one would only show at the first request."""
    records = {r for t in (lambda_types, logs_types) for s in (t.INPUT, t.OUTPUT) for r in s.values() if r}
    for record in records:
        msgspec.json.Decoder(record)


def test_absent_members_are_left_out() -> None:
    configuration = lambda_types.FunctionConfiguration(function_name="f", code_size=0)
    assert msgspec.json.encode(configuration) == b'{"FunctionName":"f","CodeSize":0}'
