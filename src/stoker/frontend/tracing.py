"""X-Ray trace headers: made where a caller sent none, completed where one left parts out. Pure."""

from random import Random


def trace_header(given: str | None, now_s: float, random: Random) -> str:
    """``Root=1-<time>-<96 bits>;Parent=<64 bits>;Sampled=0|1``, keeping every part that the caller gave."""
    bits = random.getrandbits(160)
    root = f"1-{int(now_s):08x}-{bits >> 64:024x}"
    parent = f"{bits & 0xFFFFFFFFFFFFFFFF:016x}"
    if not given:
        return f"Root={root};Parent={parent};Sampled=0"
    parts = dict(part.strip().split("=", 1) for part in given.split(";") if "=" in part)
    whole = {"Root": root, "Parent": parent, "Sampled": "0"} | parts
    return ";".join(f"{name}={value}" for name, value in whole.items())
