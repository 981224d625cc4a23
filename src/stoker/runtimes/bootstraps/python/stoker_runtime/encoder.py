"""The slow way to JSON: simplejson's rules for the values that the C encoder treats differently.

Named tuples become objects, bytes become text, Decimal keeps its digits, NaN decimals become NaN.
"""

# ruff: noqa: PLC0415 - what a start does not need is imported where it is used

import _json
import math

from stoker_runtime.marshal import _refuse


def encode(obj, escape):
    """JSON text of any value; ``escape`` writes everything outside ASCII as \\uXXXX."""
    quote = _json.encode_basestring_ascii if escape else _json.encode_basestring
    parts = []
    _write(obj, parts.append, quote, set())
    return "".join(parts)


def _number(value):
    if isinstance(value, float):
        if value != value:
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return float.__repr__(value)
    return int.__repr__(value)


def _scalar(obj, quote):  # noqa: PLR0911 - a table of types
    """Text of a scalar, or None for anything else."""
    if isinstance(obj, str):
        return quote(str(obj))
    if isinstance(obj, bytes):
        return quote(obj.decode("utf-8"))
    if obj is None:
        return "null"
    if obj is True:
        return "true"
    if obj is False:
        return "false"
    if isinstance(obj, (int, float)):
        return _number(obj)
    return None


def _write(obj, emit, quote, parents):
    text = _scalar(obj, quote)
    if text is not None:
        emit(text)
        return
    if id(obj) in parents:
        raise ValueError("Circular reference detected")
    parents.add(id(obj))
    as_dict = getattr(obj, "_asdict", None)
    if isinstance(obj, list):
        _write_list(obj, emit, quote, parents)
    elif callable(as_dict) and isinstance(obj, tuple):
        _write_dict(as_dict(), emit, quote, parents)
    elif isinstance(obj, tuple):
        _write_list(obj, emit, quote, parents)
    elif isinstance(obj, dict):
        _write_dict(obj, emit, quote, parents)
    else:
        _write_other(obj, emit, quote, parents)
    parents.discard(id(obj))


def _write_list(obj, emit, quote, parents):
    emit("[")
    separator = ""
    for value in obj:
        emit(separator)
        separator = ", "
        _write(value, emit, quote, parents)
    emit("]")


def _write_dict(obj, emit, quote, parents):
    emit("{")
    separator = ""
    for key, value in obj.items():
        emit(separator)
        separator = ", "
        emit(quote(_key(key)))
        emit(": ")
        _write(value, emit, quote, parents)
    emit("}")


def _key(key):
    if isinstance(key, str):
        return str(key)
    if isinstance(key, bytes):
        return key.decode("utf-8")
    if isinstance(key, (int, float)) or key is None:
        return _scalar(key, None)
    raise TypeError(f"keys must be str, int, float, bool or None, not {key.__class__.__name__}")


def _write_other(obj, emit, quote, parents):
    from decimal import Decimal

    if isinstance(obj, Decimal):
        emit("NaN" if obj.is_nan() else str(obj))
        return
    _refuse(obj)
