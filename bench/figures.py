"""What measurements hand over: figures beside their yardsticks, the options they run under, and the record of
a run. Knows nothing of how anything is measured.
"""

from pathlib import Path

import msgspec

RESULTS = Path(__file__).parent / "results"
LATEST = RESULTS / "latest.json"
LANDED = Path(__file__).parent / "landed.json"


class Figure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One number. ``name`` is stable from run to run; with a yardstick its ratio can be compared."""

    name: str
    value: float
    unit: str
    n: int
    """Samples behind the value."""
    yardstick: float | None = None
    yardstick_name: str = ""
    higher_is_better: bool = False
    tolerance: float | None = 0.5
    """By which share the ratio may get worse than the landed one; None: too noisy to fail on."""
    goal: str = ""

    @property
    def ratio(self) -> float | None:
        """Value over yardstick."""
        return self.value / self.yardstick if self.yardstick else None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything."""

    seconds: float = 5.0
    """Length of each run under load."""
    cold_starts: int = 60
    sandboxes: int = 200
    """Idle ones, for density."""
    creations: int = 100


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One measure's outcome, and on what and how busy a machine it ran."""

    figures: list[Figure]
    machine: dict[str, str]
    load_before: float
    seconds: float


Record = dict[str, Measured]
"""By the measure's name."""


class Missing(Exception):
    """A measure cannot run on this host; the text says what would be needed."""


def read_record(file: Path) -> Record:
    """A record written before; empty when there is none."""
    return msgspec.json.decode(file.read_bytes(), type=Record) if file.exists() else {}


def write_record(file: Path, record: Record) -> None:
    """Written with the ratio of each figure, so that other programs need not divide."""
    file.parent.mkdir(exist_ok=True)
    plain = msgspec.to_builtins(record)
    for name, measured in record.items():
        for figure, written in zip(measured.figures, plain[name]["figures"], strict=True):
            if figure.ratio is not None:
                written["ratio"] = round(figure.ratio, 4)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(plain), indent=1) + b"\n")
