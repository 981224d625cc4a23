"""What the model demands of values, compiled into small tables that ``validate`` walks. Pure."""

import re
from typing import Any, Final

import msgspec

Model = dict[str, Any]


class Member(msgspec.Struct, eq=False):
    """One member of a structure: its name in JSON, its name in messages, what it may hold."""

    wire: str
    label: str
    rule: "Rule"
    required: bool


class Rule(msgspec.Struct, eq=False):
    """The constraints of one shape. Shapes may lead back to themselves, so rules do too."""

    name: str
    kind: str
    """A type of the model: structure, list, map, string, integer, long, double, boolean, blob, timestamp."""
    minimum: float | None = None
    maximum: float | None = None
    pattern: "re.Pattern[str] | None" = None
    enum: frozenset[str] | None = None
    constraints: tuple[str, ...] = ()
    """How messages word everything that is demanded of a scalar."""
    sensitive: bool = False
    may_be_null: bool = False
    members: tuple[Member, ...] = ()
    element: "Rule | None" = None
    """Of a list or of a map's values."""
    key: "Rule | None" = None


# Where the service is known to differ from the published model. The limits are those of the developer guide;
# orders and wordings are as the service's answers have them.
MAXIMA: Final = {"Timeout": 900, "MemorySize": 10_240, "EphemeralStorageSize": 10_240}
ENUM_ORDER: Final[dict[str, tuple[str, ...]]] = {
    "EventSourcePosition": ("LATEST", "AT_TIMESTAMP", "TRIM_HORIZON")
}
PATTERN_WORDING: Final = {
    "TaggableResource": (
        r"arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:"
        r"(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?|layer:([a-zA-Z0-9-_]+)"
        r"|code-signing-config:csc-[a-z0-9]{17}"
        r"|event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
        r"|capacity-provider:[a-zA-Z0-9-_]+)"
    ),
    "LayerVersionArn": (
        r"(arn:(aws[a-zA-Z-]*)?:lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:layer:"
        r"[a-zA-Z0-9-_]+:[0-9]+)|(arn:[a-zA-Z0-9-]+:lambda:::awslayer:[a-zA-Z0-9-_]+)"
    ),
}
# Checked by the operation itself, which answers in other words.
UNCHECKED_ENUMS: Final = frozenset({"Runtime"})
UNCHECKED_LISTS: Final = frozenset({"CompatibleArchitectures"})
# Their lists do not say "Member must not be null".
NULLABLE_ELEMENTS: Final = frozenset({"SecurityGroupId", "SubnetId"})

_SEPARATORS: Final = " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NUMBERS: Final = frozenset(("integer", "long", "float", "double"))


def label_of(member: str) -> str:
    """The name of a member as messages have it: the first letter in lower case (``kMSKeyArn``)."""
    return member[:1].lower() + member[1:]


def compile_pattern(text: str) -> "re.Pattern[str]":
    """A pattern of the model (Java's dialect) for ``fullmatch``."""
    if r"\p" in text:
        for java, python in ((r"\p{L}", r"\w"), (r"\p{N}", ""), (r"\p{Z}", _SEPARATORS)):
            text = text.replace(java, python)
        return re.compile(text)
    return re.compile(text.replace(r"[\w-_]", r"[\w\-_]"), re.ASCII)


class Compiler:
    """Turns shapes of one model into rules, each once."""

    def __init__(self, shapes: Model) -> None:
        self._shapes = shapes
        self._rules: dict[str, Rule] = {}

    def rule(self, name: str) -> Rule:
        """The rule of shape ``name`` and of all it leads to."""
        known = self._rules.get(name)
        if known is not None:
            return known
        shape = self._shapes[name]
        rule = Rule(name, shape["type"], sensitive=bool(shape.get("sensitive")))
        self._rules[name] = rule
        rule.may_be_null = name in NULLABLE_ELEMENTS
        rule.minimum = shape.get("min")
        rule.maximum = MAXIMA.get(name, shape.get("max"))
        if "pattern" in shape:
            rule.pattern = compile_pattern(shape["pattern"])
        if "enum" in shape and name not in UNCHECKED_ENUMS:
            rule.enum = frozenset(shape["enum"])
        rule.constraints = tuple(_wording(rule, shape))
        self._compile_children(rule, shape)
        return rule

    def _compile_children(self, rule: Rule, shape: Model) -> None:
        if rule.kind == "structure":
            required = frozenset(shape.get("required", ()))
            rule.members = tuple(
                Member(
                    reference.get("locationName", name) if "location" not in reference else name,
                    label_of(name),
                    self.rule(reference["shape"]),
                    name in required,
                )
                for name, reference in shape["members"].items()
                if not reference.get("eventpayload")
            )
        elif rule.kind == "list":
            element = self.rule(shape["member"]["shape"])
            rule.element = Rule(element.name, element.kind) if rule.name in UNCHECKED_LISTS else element
        elif rule.kind == "map":
            rule.key = self.rule(shape["key"]["shape"])
            rule.element = self.rule(shape["value"]["shape"])


def _wording(rule: Rule, shape: Model) -> list[str]:
    """Longest first, then shortest, then the pattern or the values: the order of AWS's messages."""
    words: list[str] = []
    numeric = rule.kind in _NUMBERS
    noun = "value" if numeric else "length"
    for bound, comparison in ((rule.maximum, "less"), (rule.minimum, "greater")):
        if bound is not None:
            words.append(f"Member must have {noun} {comparison} than or equal to {bound}")
    if rule.pattern is not None:
        text = PATTERN_WORDING.get(rule.name, shape["pattern"])
        words.append(f"Member must satisfy regular expression pattern: {text}")
    if rule.enum is not None:
        order: list[str] = shape["enum"]
        values = ", ".join(ENUM_ORDER.get(rule.name, order))
        words.append(f"Member must satisfy enum value set: [{values}]")
    return words
