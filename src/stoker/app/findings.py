"""One line of ``stoker doctor``."""

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """One line of ``stoker doctor``. ``verdict`` is ok, degraded or missing."""

    verdict: str
    what: str
    found: str
    consequence: str = ""
