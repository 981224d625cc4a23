"""SigV4 against botocore's own signers: whatever they sign is accepted, whatever was changed is not."""

import hashlib
import hmac
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.api.canonical import canonical_path, canonical_query, canonical_value, split_query
from stoker.api.sigv4 import Caller, Verifier, hash_body, signing_key
from stoker.core.clock import ManualClock
from stoker.core.errors import ServiceError
from stoker.http.messages import Request
from stoker.services.credentials import Credential
from tests.unit.api.signing import HOST, KEY, KnownKeys, sign

NOW_S = 1_790_000_000.0
TEMPORARY = Credential(
    access_key_id="ASIATEMPORARY",
    secret="temporary",
    account="000000000000",
    principal_arn="arn:aws:sts::000000000000:assumed-role/r/s",
    session_token="a/session+token==",
)


def verify(request: Request, *, now_s: float = NOW_S, service: bytes = b"lambda") -> Caller:
    verifier = Verifier(KnownKeys(KEY, TEMPORARY), ManualClock(now_s))
    return verifier.settle(verifier.open(request, service), request, hash_body(request.body))


def refusal(request: Request, *, now_s: float = NOW_S, service: bytes = b"lambda") -> tuple[str, str]:
    with pytest.raises(ServiceError) as caught:
        verify(request, now_s=now_s, service=service)
    return caught.value.code, caught.value.message


def replace_header(request: Request, name: bytes, value: bytes) -> Request:
    request.headers = [(n, value if n == name else v) for n, v in request.headers]
    return request


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/2015-03-31/functions", b""),
        ("GET", "/2015-03-31/functions/?MaxItems=5&Marker=a%2Fb%20c", b""),
        ("GET", "/2015-03-31/functions/f?Qualifier=%24LATEST", b""),
        (
            "POST",
            "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A1%3Afunction%3Af/invocations",
            b"{}",
        ),
        ("DELETE", "/2017-03-31/tags/arn%3Aaws%3Alambda?tagKeys=b&tagKeys=a", b""),
        ("PUT", "/2015-03-31/functions/f/code", b"\x00" * 5000),
    ],
)
def test_header_form(method: str, path: str, body: bytes) -> None:
    caller = verify(sign(NOW_S, method=method, path=path, body=body))
    assert caller.credential is KEY
    assert caller.region == "us-east-1"


@pytest.mark.parametrize(
    "path", ["/2015-03-31/functions", "/2015-03-31/functions/f?Qualifier=%24LATEST&A=b%2Bc"]
)
@pytest.mark.parametrize("key", [KEY, TEMPORARY])
def test_presigned_form(path: str, key: Credential) -> None:
    request = sign(NOW_S, method="GET", path=path, body=b"", presign_s=60, key=key)
    assert verify(request, now_s=NOW_S + 60).credential is key
    code, message = refusal(request, now_s=NOW_S + 61)
    assert code == "InvalidSignatureException"
    assert message.startswith("Signature expired: ")


def test_presigned_body_is_bound() -> None:
    request = sign(NOW_S, method="POST", path="/2015-03-31/functions/f/invocations", body=b"", presign_s=60)
    verify(request)
    request.body = b'{"added":1}'
    assert refusal(request)[0] == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("expires", "word"), [("604801", "less than a week"), ("x", "number"), ("-1", "number")]
)
def test_presigned_expiry_is_bounded(expires: str, word: str) -> None:
    request = sign(NOW_S, method="GET", path="/2015-03-31/functions", body=b"", presign_s=60)
    request.target = request.target.replace(b"X-Amz-Expires=60", f"X-Amz-Expires={expires}".encode())
    code, message = refusal(request)
    assert code == "IncompleteSignatureException"
    assert word in message


def test_a_week_is_allowed() -> None:
    request = sign(NOW_S, method="GET", path="/2015-03-31/functions", body=b"", presign_s=604800)
    verify(request, now_s=NOW_S + 604799)


def test_session_token_goes_with_its_key() -> None:
    request = sign(NOW_S, key=TEMPORARY)
    assert verify(request).credential is TEMPORARY
    expected = ("UnrecognizedClientException", "The security token included in the request is invalid.")
    assert refusal(replace_header(request, b"x-amz-security-token", b"another")) == expected
    assert (
        refusal(
            sign(
                NOW_S, key=Credential(access_key_id="AKIAUNKNOWN", secret="s", account="1", principal_arn="p")
            )
        )
        == expected
    )


@pytest.mark.parametrize("offset_s", [-300, 0, 300])
def test_within_the_clock_skew(offset_s: int) -> None:
    verify(sign(NOW_S + offset_s))


def test_outside_the_clock_skew() -> None:
    assert refusal(sign(1_440_938_160 - 301), now_s=1_440_938_160.0) == (
        "InvalidSignatureException",
        "Signature expired: 20150830T123059Z is now earlier than 20150830T123100Z (20150830T123600Z - 5 min.)",
    )
    assert refusal(sign(1_440_938_160 + 301), now_s=1_440_938_160.0) == (
        "InvalidSignatureException",
        "Signature not yet current: 20150830T124101Z is still later than 20150830T124100Z "
        "(20150830T123600Z + 5 min.)",
    )


def test_scope_must_fit() -> None:
    code, message = refusal(sign(NOW_S), service=b"logs")
    assert (code, message) == (
        "InvalidSignatureException",
        "Credential should be scoped to correct service: 'logs'. ",
    )
    code, message = refusal(sign(NOW_S, region="nowhere"))
    assert (code, message) == (
        "InvalidSignatureException",
        "Credential should be scoped to a valid region, not 'nowhere'. ",
    )
    request = sign(NOW_S)
    header = request.header(b"authorization") or b""
    replace_header(request, b"authorization", header.replace(b"/2026", b"/2025"))
    assert refusal(request)[1].startswith("Date in Credential scope does not match YYYYMMDD")
    replace_header(request, b"authorization", header.replace(b"aws4_request", b"aws5_request"))
    assert "valid terminator" in refusal(request)[1]


def test_requests_are_served_in_the_region_of_their_scope() -> None:
    assert verify(sign(NOW_S, region="eu-central-1")).region == "eu-central-1"


@pytest.mark.parametrize("header", [None, b"Bearer abc", b"Basic dTpw"])
def test_unsigned(header: bytes | None) -> None:
    request = sign(NOW_S)
    request.headers = [(n, v) for n, v in request.headers if n != b"authorization"]
    if header:
        request.headers.append((b"authorization", header))
    assert refusal(request) == ("MissingAuthenticationTokenException", "Missing Authentication Token")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            b"AWS4-HMAC-SHA256 SignedHeaders=host, Signature=0",
            "Authorization header requires 'Credential' parameter.",
        ),
        (
            b"AWS4-HMAC-SHA256 Credential=a/b/c/d/e",
            "Authorization header requires 'Signature' parameter. "
            "Authorization header requires 'SignedHeaders' parameter.",
        ),
        (b"AWS4-HMAC-SHA256 nonsense", "Authorization header is not a list of distinct key=value pairs."),
    ],
)
def test_incomplete(header: bytes, message: str) -> None:
    assert refusal(replace_header(sign(NOW_S), b"authorization", header)) == (
        "IncompleteSignatureException",
        message,
    )


@pytest.mark.parametrize("name", [b"authorization", b"host", b"x-amz-date"])
def test_doubled_headers(name: bytes) -> None:
    request = sign(NOW_S)
    request.headers.append((name, request.header(name) or b""))
    assert refusal(request) == (
        "IncompleteSignatureException",
        f"Headers must not be sent more than once: {name.decode()}",
    )


def test_both_forms_at_once() -> None:
    request = sign(NOW_S, method="GET", path="/", body=b"", presign_s=60)
    request.headers.append((b"authorization", sign(NOW_S).header(b"authorization") or b""))
    assert "Only one auth mechanism allowed" in refusal(request)[1]


def test_parameters_in_another_order() -> None:
    request = sign(NOW_S)
    algorithm, _, rest = (request.header(b"authorization") or b"").partition(b" ")
    turned = algorithm + b"  " + b",  ".join(reversed(rest.split(b", ")))
    verify(replace_header(request, b"authorization", turned))


def test_date_header_instead_of_x_amz_date() -> None:
    """Signed by hand: botocore always sends X-Amz-Date."""
    date = b"Mon, 21 Sep 2026 14:13:20 GMT"
    canonical = (
        b"GET\n/\n\ndate:" + date + b"\nhost:h\n\ndate;host\n" + hashlib.sha256(b"").hexdigest().encode()
    )
    scope = b"20260921/us-east-1/lambda/aws4_request"
    to_sign = (
        b"AWS4-HMAC-SHA256\n20260921T141320Z\n"
        + scope
        + b"\n"
        + hashlib.sha256(canonical).hexdigest().encode()
    )
    key = signing_key(KEY.secret, b"20260921", b"us-east-1", b"lambda")
    signature = hmac.new(key, to_sign, "sha256").hexdigest().encode()
    header = b"AWS4-HMAC-SHA256 Credential=" + KEY.access_key_id.encode() + b"/" + scope
    header += b", SignedHeaders=date;host, Signature=" + signature
    headers = [(b"host", b"h"), (b"date", date), (b"authorization", header)]
    verify(Request(b"GET", b"/", headers, "", False))


def test_unsigned_payload_must_be_said_under_the_signature() -> None:
    request = sign(NOW_S, headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    verify(request)
    request.body = b"another"
    verify(request)
    bound = sign(NOW_S)
    bound.headers.append((b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD"))
    assert refusal(bound)[0] == "InvalidSignatureException"


def test_content_sha256_must_fit_the_body() -> None:
    digest = hashlib.sha256(b"{}").hexdigest()
    request = sign(NOW_S, headers={"X-Amz-Content-SHA256": digest})
    verify(request)
    request.body = b"[]"
    assert refusal(request) == (
        "InvalidSignatureException",
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    )


def test_streamed_signatures_are_refused() -> None:
    request = sign(NOW_S, headers={"X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"})
    assert "streamed signatures are not supported" in refusal(request)[1]


def test_signing_key_of_the_documentation() -> None:
    key = signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", b"20150830", b"us-east-1", b"iam")
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", b"/"),
        (b"", b"/"),
        (b"/a//b/./c/../d/", b"/a/b/d/"),
        (b"/../..", b"/"),
        (b"/a%2Fb", b"/a%252Fb"),
        (b"/a b~", b"/a%20b~"),
        (b"/f:1", b"/f%3A1"),
        (b"/..//", b"/"),
    ],
)
def test_canonical_path(path: bytes, expected: bytes) -> None:
    assert canonical_path(path) == expected


def test_canonical_query_and_value() -> None:
    assert canonical_query(split_query(b"b=2&a=%7e&a=1&c&d=a+b&&e=%20")) == b"a=1&a=~&b=2&c=&d=a%2Bb&e=%20"
    assert canonical_value(b"  a   b\t c ") == b"a b c"


SEGMENT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=12)
HEADER_VALUE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


@given(
    segments=st.lists(SEGMENT.filter(lambda s: s not in (".", "..")), max_size=4),
    query=st.lists(st.tuples(SEGMENT, st.text(st.characters(codec="utf-8"), max_size=12)), max_size=4),
    headers=st.dictionaries(st.from_regex(r"x-amz-[a-z]{1,8}", fullmatch=True), HEADER_VALUE, max_size=3),
    body=st.binary(max_size=64),
)
def test_whatever_botocore_signs_is_accepted(
    segments: list[str], query: list[tuple[str, str]], headers: dict[str, str], body: bytes
) -> None:
    path = "/" + "/".join(quote(segment, safe="") for segment in segments)
    if query:
        path += "?" + "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in query)
    headers = {n: v for n, v in headers.items() if n not in ("x-amz-date", "x-amz-security-token")}
    request = sign(NOW_S, path=path, headers=headers, body=body)
    assert verify(request).credential is KEY


@given(data=st.data())
def test_any_change_is_noticed(data: st.DataObject) -> None:
    request = sign(NOW_S, path="/2015-03-31/functions/f/invocations?Qualifier=live", body=b'{"key":"value"}')
    match data.draw(st.sampled_from(["method", "target", "body", "host", "signature", "added"])):
        case "method":
            request.method = b"PUT"
        case "target":
            position = data.draw(st.integers(1, len(request.target) - 1))
            changed = bytearray(request.target)
            changed[position] ^= 0x01
            request.target = bytes(changed)
        case "body":
            position = data.draw(st.integers(0, len(request.body) - 1))
            request.body = request.body[:position] + b"~" + request.body[position + 1 :]
        case "host":
            replace_header(request, b"host", HOST.encode() + b"0")
        case "signature":
            header = request.header(b"authorization") or b""
            replace_header(request, b"authorization", header[:-1] + (b"0" if header[-1:] != b"0" else b"1"))
        case _:
            name = data.draw(st.sampled_from([b"x-amz-invocation-type", b"x-amz-target", b"x-amz-log-type"]))
            request.headers.append((name, b"Event"))
    assert refusal(request)[0] in ("InvalidSignatureException", "IncompleteSignatureException")
