"""Seccomp: turns an allow-list of system calls into BPF and puts this process, threads and all, under it."""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from stoker.packaging.system_calls import FALLS_BACK, FATAL, NUMBERS, Condition, Conditions, Rules

ALLOW: Final = 0x7FFF0000
KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
REFUSE: Final = _ERRNO | errno.EPERM
UNKNOWN: Final = _ERRNO | errno.ENOSYS

_LOAD, _AND, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # in struct seccomp_data
_X32_FROM: Final = 0x40000000
"""On x86_64 the same calls again, with other sizes of arguments."""

_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_PR_GET_SECCOMP: Final = 21
_PROGRAM_MAX: Final = 4096

Instruction = tuple[int, int, int, int]
"""Code, how many to skip when true and when not, operand."""

_libc = ctypes.CDLL(None, use_errno=True)


class Architecture(msgspec.Struct, frozen=True):
    """Its AUDIT_ARCH, its place in ``NUMBERS``, the number of seccomp() there."""

    audit: int
    column: int
    seccomp: int


ARCHITECTURES: Final = {
    "x86_64": Architecture(0xC000003E, 0, 317),
    "aarch64": Architecture(0xC00000B7, 1, 277),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def available() -> bool:
    """Whether this kernel filters system calls, and this processor's have names here."""
    return platform.machine() in ARCHITECTURES and _libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0


def restrict_to(rules: Rules) -> bool:
    """Allow these calls and no other, from now on and in every thread; needs no-new-privileges.

    False: not available here.

    Raises:
        OSError: the kernel has seccomp and refused.
    """
    if not available():
        return False
    architecture = ARCHITECTURES[platform.machine()]
    instructions = compiled(rules, architecture)
    packed = b"".join(struct.pack("=HBBI", *each) for each in instructions)
    program = _Program(len(instructions), packed)
    result = _libc.syscall(architecture.seccomp, _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(program))
    if result != 0:
        number = ctypes.get_errno() or errno.EBUSY  # above 0 it names a thread that is filtered otherwise
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    return True


def compiled(rules: Rules, architecture: Architecture) -> list[Instruction]:
    """The program: by the call's number, then by its arguments."""
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_IF_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_IF_AT_LEAST, 0, 1, _X32_FROM),
        (_RETURN, 0, 0, KILL_PROCESS),
    ]
    for name, conditions in rules.items():
        program += _for_call(name, architecture, _decision(conditions))
    for names, answer in ((FALLS_BACK, UNKNOWN), (FATAL, KILL_PROCESS)):
        for name in names:
            program += _for_call(name, architecture, [(_RETURN, 0, 0, answer)])
    program.append((_RETURN, 0, 0, REFUSE))
    if len(program) > _PROGRAM_MAX:
        raise ValueError(f"a program has at most {_PROGRAM_MAX} instructions, not {len(program)}")
    return program


def _for_call(name: str, architecture: Architecture, decision: Sequence[Instruction]) -> list[Instruction]:
    number = NUMBERS[name][architecture.column]
    return [] if number is None else [(_IF_EQUAL, 0, len(decision), number), *decision]


def _decision(conditions: Conditions) -> list[Instruction]:
    found: list[Instruction] = []
    for condition in conditions:
        found += _unless_refused(condition)
    return [*found, (_RETURN, 0, 0, ALLOW)]


def _unless_refused(condition: Condition) -> list[Instruction]:
    """Goes on behind itself when the condition holds."""
    values = condition.values
    comparisons = [(_IF_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [
        (_LOAD, 0, 0, _ARGUMENTS_AT + 4 * condition.word),
        (_AND, 0, 0, condition.mask),
        *comparisons,
        (_RETURN, 0, 0, REFUSE),
    ]
