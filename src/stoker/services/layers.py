"""Layers as the rooms know them: what a version is, what names it, and where it is kept.

``control`` writes them; whoever decides on access reads their policies.
"""

import re
from typing import ClassVar, Final

import msgspec

from stoker.services.records import RecordKey

LAYER_KIND: Final = "layer"
CODE_KIND: Final = "layer-code"
POLICY_KIND: Final = "layer-policy"

_NUMBER_DIGITS: Final = 20
"""Of version numbers in keys, so that their order is that of the numbers."""

_ARN: Final = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):layer:(?P<name>[a-zA-Z0-9-_]+)"
    r"(?::(?P<number>[0-9]{1,19}))?",
    re.ASCII,
)


class LayerKey(msgspec.Struct, frozen=True, order=True):
    """What names a layer: resources belong to (account, region)."""

    account: str
    region: str
    name: str

    @property
    def arn(self) -> str:
        return f"arn:aws:lambda:{self.region}:{self.account}:layer:{self.name}"


class LayerVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a layer, immutable."""

    KIND: ClassVar[str] = "layer-version"

    layer: LayerKey
    number: int
    created: str
    """As Lambda shows it: ``2026-01-31T12:00:00.000+0000``."""
    description: str = ""
    license_info: str | None = None
    runtimes: tuple[str, ...] | None = None
    architectures: tuple[str, ...] | None = None
    code_sha256: str
    size_bytes: int
    unpacked_bytes: int

    @property
    def arn(self) -> str:
        return layer_version_arn(self.layer, self.number)


def layer_version_arn(layer: LayerKey, number: int) -> str:
    """``arn:aws:lambda:REGION:ACCOUNT:layer:NAME:NUMBER``."""
    return f"{layer.arn}:{number}"


def version_key(layer: LayerKey, number: int) -> RecordKey:
    """Where a version is kept. ``number`` is not negative."""
    name = f"{number:0{_NUMBER_DIGITS}d}"
    return RecordKey(LayerVersion.KIND, layer.account, layer.region, layer.name, name)


def parse_layer_arn(text: str) -> tuple[LayerKey, int | None] | None:
    """The layer that an ARN names, and the version if it names one; None for what is no such ARN."""
    match = _ARN.fullmatch(text)
    if match is None:
        return None
    number = match["number"]
    key = LayerKey(match["account"], match["region"], match["name"])
    return key, None if number is None else int(number)
