"""Landlock: an unprivileged process gives up every file, TCP port and signal but what it names. Linux 5.13+.

Without it a packer that an archive took over could read whatever the service's user can: the master key,
the databases, other functions' code.
"""

import ctypes
import os
import struct
from collections.abc import Mapping

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REMOVE_FILE = 1 << 5
_MAKE_DIR = 1 << 7
_MAKE_REG = 1 << 8
_MAKE_SYM = 1 << 12

UNPACKING = _WRITE_FILE | _READ_DIR | _MAKE_DIR | _MAKE_REG | _MAKE_SYM
"""Make new files, folders and links; read no file, remove nothing."""

READING = _READ_FILE | _READ_DIR
RUNNING = READING | _EXECUTE
MAKING_FILES = _WRITE_FILE | _READ_DIR | _MAKE_REG | _REMOVE_FILE
"""Make files and give them another name; removing is what a new name needs."""

_FILE_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many of the access bits each version of the interface knows; later ones as the last."""
_NETWORK_SINCE, _BIND_AND_CONNECT = 4, 0b11
_SCOPES_SINCE, _ABSTRACT_SOCKETS_AND_SIGNALS = 6, 0b11

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The kernel's Landlock version; 0 when it has none or it is switched off."""
    return max(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG), 0)


def restrict_to(rights: Mapping[str, int]) -> bool:
    """Keep these rights below each folder and nothing else; needs no-new-privileges. False: not available.

    Raises:
        OSError: the kernel has Landlock and refused.
    """
    supported = version()
    if supported < 1:
        return False
    attributes = _attributes(supported)
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    try:
        for folder, kept in rights.items():
            _keep(ruleset, folder, kept)
        _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def _keep(ruleset: int, folder: str, rights: int) -> None:
    below = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rule = struct.pack("<Qi", rights, below)
        _checked(_libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0))
    finally:
        os.close(below)


def _attributes(supported: int) -> bytes:
    """Handled rights: all the kernel knows, since what is not handled stays allowed."""
    files = (1 << _FILE_RIGHTS_BY_VERSION.get(supported, 16)) - 1
    if supported < _NETWORK_SINCE:
        return struct.pack("<Q", files)
    if supported < _SCOPES_SINCE:
        return struct.pack("<QQ", files, _BIND_AND_CONNECT)
    return struct.pack("<QQQ", files, _BIND_AND_CONNECT, _ABSTRACT_SOCKETS_AND_SIGNALS)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"landlock: {os.strerror(number)}")
    return result
