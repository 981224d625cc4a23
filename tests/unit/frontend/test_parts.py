"""Client contexts, trace headers and the authoriser."""

import base64
import re
from random import Random

import pytest

from stoker.core.errors import ServiceError
from stoker.frontend.authorisation import AccountAuthoriser
from stoker.frontend.client_context import decode_client_context
from stoker.frontend.tracing import trace_header
from stoker.services.authorisation import INVOKE_FUNCTION
from tests.simulation.frontend.world import context_of, key_of


def test_a_client_context_arrives_as_its_json() -> None:
    text = '{"custom": {"käse": 1}}'
    assert decode_client_context(base64.b64encode(text.encode()).decode()) == text


@pytest.mark.parametrize(
    "encoded",
    ["string", "{}", "ä", *(base64.b64encode(raw).decode() for raw in (b"no json", b"[1]", b"\xff", b'"x"'))],
)
def test_anything_else_is_refused_in_the_words_of_aws(encoded: str) -> None:
    with pytest.raises(ServiceError) as refused:
        decode_client_context(encoded)
    assert refused.value.code == "InvalidRequestContentException"
    assert refused.value.message == "Client context must be a valid Base64-encoded JSON object."


def test_a_trace_header_is_made() -> None:
    header = trace_header(None, 0x65A1B2C3, Random(1))
    assert re.fullmatch(r"Root=1-65a1b2c3-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", header)
    assert trace_header(None, 0x65A1B2C3, Random(2)) != header


def test_a_trace_header_keeps_what_the_caller_gave() -> None:
    given = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a:0"
    assert trace_header(given, 1.0, Random(1)) == given
    completed = trace_header("Root=1-5759e988-bd862e3fe1be46a994272793", 1.0, Random(1))
    assert re.fullmatch(r"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=[0-9a-f]{16};Sampled=0", completed)


@pytest.mark.parametrize(
    "given",
    [
        *("garbage", "x" * 5000, ";;;=;=", "Root=", "Root=1-xyz", "Root=1;a b=c", "Parent=53995C3F42CD8AD8"),
        *("Sampled=?", f"Lineage={'a' * 300}", "Lineage=ü", "A\r\nB=1", "=1", f"Root=1-{'f' * 4000}"),
    ],
)
def test_malformed_parts_of_a_trace_header_are_left_out(given: str) -> None:
    assert trace_header(given, 1.0, Random(1)) == trace_header(None, 1.0, Random(1))


def test_many_further_parts_are_bounded() -> None:
    given = ";".join(f"Part{number}=value" for number in range(1000))
    assert len(trace_header(given, 1.0, Random(1))) < 400


async def test_an_account_may_do_everything_to_its_own_functions_and_nothing_to_others() -> None:
    authoriser = AccountAuthoriser()
    await authoriser.authorise(context_of(), INVOKE_FUNCTION, key_of("f"), None)
    with pytest.raises(ServiceError) as refused:
        await authoriser.authorise(context_of(account="111111111111"), INVOKE_FUNCTION, key_of("f"), None)
    assert refused.value.code == "AccessDeniedException"
    assert refused.value.message == (
        "User: arn:aws:iam::111111111111:root is not authorized to perform: lambda:InvokeFunction on resource: "
        "arn:aws:lambda:us-east-1:000000000000:function:f because no resource-based policy allows the "
        "lambda:InvokeFunction action"
    )
