"""JSON in and out without importing ``json``: the C scanner and encoder behind it do the work.

Results are those of simplejson as AWS's runtime uses it; what the C encoder would do otherwise (Decimal,
bytes, named tuples, other key types) takes the slow way in ``stoker_runtime.encoder``.
"""

# ruff: noqa: PLC0415 - what a start does not need is imported where it is used

import _json
import os

_NON_ASCII_RUNTIMES = {
    b"AWS_Lambda_python3.12",
    b"AWS_Lambda_python3.13",
    b"AWS_Lambda_python3.14",
    b"AWS_Lambda_python3.15",
}
_CONSTANTS = {"-Infinity": float("-inf"), "Infinity": float("inf"), "NaN": float("nan")}
_WHITE = " \t\n\r"


class _ScannerSettings:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = _CONSTANTS.__getitem__


_scan = _json.make_scanner(_ScannerSettings)


def loads(data):
    """Parse JSON bytes; errors are those of json.loads."""
    try:
        text = data.decode("utf-8").lstrip(_WHITE)
        value, end = _scan(text, 0)
        if end == len(text) or not text[end:].strip(_WHITE):
            return value
    except (StopIteration, ValueError):
        pass
    import json

    return json.loads(data)


def escapes_non_ascii():
    """Runtimes before Python 3.12 write \\uXXXX for everything outside ASCII."""
    return os.environ._data.get(b"AWS_EXECUTION_ENV") not in _NON_ASCII_RUNTIMES


def _refuse(obj):
    raise TypeError(f"Object of type {obj.__class__.__name__} is not JSON serializable")


def _encoder(escape):
    return _json.make_encoder(
        None,  # cycles are found before
        _refuse,
        _json.encode_basestring_ascii if escape else _json.encode_basestring,
        None,
        ": ",
        ", ",
        False,
        False,
        True,
    )


_encoders = {}


def to_json(obj):
    """JSON text of a handler's result.

    Raises TypeError or ValueError for what has no JSON form, with simplejson's messages.
    """
    if not _is_plain(obj):
        from stoker_runtime import encoder

        return encoder.encode(obj, escapes_non_ascii())
    escape = escapes_non_ascii()
    encode = _encoders.get(escape)
    if encode is None:
        encode = _encoders[escape] = _encoder(escape)
    if type(obj) is str:
        text = (_json.encode_basestring_ascii if escape else _json.encode_basestring)(obj)
    else:
        text = "".join(encode(obj, 0))
    return text


_SCALARS = frozenset([str, int, float, bool, type(None)])


def _is_plain(root):
    """Whether the C encoder gives what simplejson would: exact built-in types and text keys only."""
    if type(root) in _SCALARS:
        return True
    stack = [root]
    seen = 0
    while stack:
        obj = stack.pop()
        kind = type(obj)
        if kind is dict:
            for key in obj:
                if type(key) is not str:
                    return False
            values = obj.values()
        elif kind is list or kind is tuple:
            values = obj
        else:
            return False
        stack.extend([value for value in values if type(value) not in _SCALARS])
        seen += 1
        if seen > 100000:  # a cycle, or so much that the slow way may sort it out
            return False
    return True
