"""Which Firecracker first knew a call or a field. Pure.

What its OpenAPI description of 1.17 has, and no release notes date, counts as new in 1.17.
"""

import msgspec

from stoker.sandbox.firecracker import records as fc

_PATHS_SINCE: dict[str, fc.Version] = {"/serial": (1, 14, 0)}
_FIELDS_SINCE: dict[tuple[type[fc.Record], str], fc.Version] = {
    (fc.SnapshotLoad, "track_dirty_pages"): (1, 13, 0),
    (fc.Balloon, "free_page_hinting"): (1, 14, 0),
    (fc.Balloon, "free_page_reporting"): (1, 14, 0),
    (fc.SnapshotLoad, "vsock_override"): (1, 17, 0),
    (fc.SnapshotLoad, "clock_realtime"): (1, 17, 0),
    (fc.NetworkInterface, "mtu"): (1, 17, 0),
    (fc.Serial, "rate_limiter"): (1, 17, 0),
}


def missing_in(version: fc.Version, path: str, body: fc.Record) -> str:
    """What of this request that version does not know, in words; empty when it knows all."""
    since = _PATHS_SINCE.get(path, fc.OLDEST)
    if version < since:
        return f"needs Firecracker {since[0]}.{since[1]}"
    defaults = {field.name: field.default for field in msgspec.structs.fields(body)}
    for (kind, name), since in _FIELDS_SINCE.items():
        if isinstance(body, kind) and version < since and getattr(body, name) != defaults[name]:
            return f"{name} needs Firecracker {since[0]}.{since[1]}"
    return ""
