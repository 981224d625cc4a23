"""The filters of confined processes, run here instruction by instruction, for both processors."""

import re
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from stoker.packaging import seccomp
from stoker.packaging.seccomp import (
    ALLOW,
    ARCHITECTURES,
    KILL_PROCESS,
    REFUSE,
    UNKNOWN,
    Instruction,
    compiled,
)
from stoker.packaging.system_calls import (
    FALLS_BACK,
    FATAL,
    FLATTENER,
    NUMBERS,
    PACKER,
    VOLUME_SERVER,
    Rules,
)

ROLES = {"packer": PACKER, "flattener": FLATTENER, "volume": VOLUME_SERVER}
PLACES = [(role, machine) for role in ROLES for machine in ARCHITECTURES]
NUMBERS_MAX = 600


def answer(program: Sequence[Instruction], audit: int, number: int, *arguments: int) -> int:
    """What the kernel would do with the call."""
    data = struct.pack("<IIQ6Q", number, audit, 0, *(*arguments, *([0] * (6 - len(arguments)))))
    place, value = 0, 0
    while True:
        code, yes, no, operand = program[place]
        place += 1
        match code:
            case 0x20:
                (value,) = struct.unpack_from("<I", data, operand)
            case 0x54:
                value &= operand
            case 0x15:
                place += yes if value == operand else no
            case 0x35:
                place += yes if value >= operand else no
            case 0x06:
                return operand
            case _:
                raise AssertionError(hex(code))


def decide(rules: Rules, machine: str, name: str, *arguments: int) -> int:
    architecture = ARCHITECTURES[machine]
    number = NUMBERS[name][architecture.column]
    assert number is not None
    return answer(compiled(rules, architecture), architecture.audit, number, *arguments)


@pytest.mark.parametrize(("role", "machine"), PLACES)
def test_every_number_has_the_answer_of_its_name(role: str, machine: str) -> None:
    rules, architecture = ROLES[role], ARCHITECTURES[machine]
    program = compiled(rules, architecture)
    names = {numbers[architecture.column]: name for name, numbers in NUMBERS.items()}
    for number in range(NUMBERS_MAX):
        name = names.get(number, "")
        given = answer(program, architecture.audit, number)
        if name in FALLS_BACK:
            assert given == UNKNOWN, name
        elif name in FATAL:
            assert given == KILL_PROCESS, name
        elif name not in rules:
            assert given == REFUSE, (number, name)
        elif not rules[name]:
            assert given == ALLOW, name


@pytest.mark.parametrize(("role", "machine"), PLACES)
def test_other_tables_of_calls_end_the_process(role: str, machine: str) -> None:
    architecture = ARCHITECTURES[machine]
    program = compiled(ROLES[role], architecture)
    assert answer(program, 0x40000003, 3) == KILL_PROCESS  # i386
    assert answer(program, architecture.audit, 0x40000000) == KILL_PROCESS


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(
    ("rules", "name", "arguments", "expected"),
    [
        (PACKER, "mmap", (0, 4096, 3), ALLOW),
        (PACKER, "mmap", (0, 4096, 7), REFUSE),
        (FLATTENER, "mprotect", (0, 4096, 4), REFUSE),
        (FLATTENER, "clone", (0x3D0F00,), ALLOW),
        (FLATTENER, "clone", (0x7D0F00,), ALLOW),
        (FLATTENER, "clone", (0x3D0F00 | 0x20000000,), REFUSE),
        (FLATTENER, "clone", (17,), REFUSE),
        (FLATTENER, "clone", (0x4111,), REFUSE),
        (PACKER, "prlimit64", (0, 0), ALLOW),
        (PACKER, "prlimit64", (0, 1), REFUSE),
        (PACKER, "prlimit64", (5, 0), REFUSE),
        (PACKER, "utimensat", (5, 0), ALLOW),
        (PACKER, "utimensat", (5, 1), REFUSE),
        (PACKER, "utimensat", (5, 1 << 32), REFUSE),
        (PACKER, "fcntl", (5, 1030), ALLOW),
        (PACKER, "fcntl", (5, 8), REFUSE),
        (VOLUME_SERVER, "newfstatat", (5, 0, 0, 0x1000), ALLOW),
        (VOLUME_SERVER, "newfstatat", (5, 0, 0, 0), REFUSE),
    ],
)
def test_arguments_count(
    machine: str, rules: Rules, name: str, arguments: tuple[int, ...], expected: int
) -> None:
    assert decide(rules, machine, name, *arguments) == expected


def test_nothing_is_both_allowed_and_fatal() -> None:
    for rules in ROLES.values():
        assert not set(rules) & {*FATAL, *FALLS_BACK}


HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",  # which aarch64 takes over
}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_are_the_kernels(machine: str) -> None:
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip(f"this host has no {header} (package linux-libc-dev)")
    defined = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    numbers = {name: int(number) for name, number in defined}
    numbers["newfstatat"] = numbers.get("newfstatat", numbers.get("fstatat", 0))
    column = ARCHITECTURES[machine].column
    for name, expected in NUMBERS.items():
        number = expected[column]
        if number is None:
            assert name not in numbers
        elif name in numbers:
            assert numbers[name] == number, name
        else:
            assert number > 434, name  # newer than these headers
    assert numbers["seccomp"] == seccomp.ARCHITECTURES[machine].seccomp
