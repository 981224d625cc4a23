"""X-Ray trace headers: made where a caller sent none, completed where one left parts out. Pure."""

import re
from random import Random

FURTHER_PARTS_MAX_CHARACTERS = 256
"""Of parts beyond Root, Parent and Sampled (Lineage, for one): X-Ray allows itself no more."""

_LOW_64 = 0xFFFFFFFFFFFFFFFF
_ROOT = re.compile(r"1-[0-9a-f]{8}-[0-9a-f]{24}", re.ASCII)
_PARENT = re.compile(r"[0-9a-f]{16}", re.ASCII)
_SAMPLED = re.compile(r"[01]")
_KNOWN = {"Root": _ROOT, "Parent": _PARENT, "Sampled": _SAMPLED}
_FURTHER = re.compile(r"[A-Za-z][A-Za-z0-9]*=[!-:<-~]+", re.ASCII)


def trace_header(given: str | None, now_s: float, random: Random) -> str:
    """``Root=1-<time>-<96 bits>;Parent=<64 bits>;Sampled=0|1``, keeping well-formed parts that were given.

    What is not well-formed is left out: a caller's text becomes a header and a variable of the function.
    """
    bits = random.getrandbits(160)
    if not given:
        return f"Root=1-{int(now_s):08x}-{bits >> 64:024x};Parent={bits & _LOW_64:016x};Sampled=0"
    whole = {
        "Root": f"1-{int(now_s):08x}-{bits >> 64:024x}",
        "Parent": f"{bits & _LOW_64:016x}",
        "Sampled": "0",
    }
    room = FURTHER_PARTS_MAX_CHARACTERS
    for part in given.split(";"):
        name, _, value = part.strip().partition("=")
        known = _KNOWN.get(name)
        if known is not None:
            if known.fullmatch(value):
                whole[name] = value
        elif _FURTHER.fullmatch(part.strip()) and len(part) <= room:
            whole[name] = value
            room -= len(part)
    return ";".join(f"{name}={value}" for name, value in whole.items())
