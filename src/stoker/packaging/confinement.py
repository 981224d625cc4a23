"""What a process gives up before it reads what others wrote. Runs in it, before its first job."""

import ctypes
import os
import resource
from pathlib import Path

from stoker.packaging import landlock, seccomp
from stoker.packaging.system_calls import FLATTENER, PACKER, VOLUME_SERVER, Rules

MEMORY_MAX_BYTES = 1024**3
"""Address space: Python, zlib and the directory of the largest allowed archive."""

FILE_MAX_BYTES = 320 * 1024**2
BYTECODE_FILE_MAX_BYTES = 16 * 1024**2
DESCRIPTORS_MAX = 64
CPU_S_PER_JOB = 60
FLATTENER_CPU_S = 1200
"""For the largest allowed image, several times over."""
FLATTENER_THREADS_MAX = 8
COMPILER_THREADS_MAX = 32
"""Of a compiler that cannot start without any, such as Node.js; counted per user where the host gives no user
namespace of its own."""

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def step_back(niceness: int) -> None:
    """Weigh no more than that and interrupt nobody, whatever the service that started this process may."""
    os.setpriority(os.PRIO_PROCESS, 0, max(niceness, os.getpriority(os.PRIO_PROCESS, 0)))
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def confine(folder: str | None) -> list[str]:
    """Drop what packing does not need; returns the names of what this host could not give.

    Limits are always set. A network namespace of its own needs user namespaces. ``folder`` is the only one
    that can be written below from then on, and no file can be opened for reading. Everything it needs of the
    system must be loaded.
    """
    missing = _give_up(FILE_MAX_BYTES)
    if folder is None or not landlock.restrict_to({folder: landlock.UNPACKING}):
        missing.append("landlock")
    return missing + _filter(PACKER)


def confine_flattener(file_max_bytes: int) -> list[str]:
    """Drop what flattening an image does not need: no file can be opened, made or found from then on.

    Returns the names of what this host could not give.
    """
    missing = _give_up(file_max_bytes, FLATTENER_THREADS_MAX)
    allow_cpu_for_a_job(FLATTENER_CPU_S)
    if not landlock.restrict_to({}):
        missing.append("landlock")
    return missing + _filter(FLATTENER)


def confine_compiler(interpreter: str, tree: str, out: str, *, threads: bool = False) -> bool:
    """Keep starting an interpreter, reading ``tree`` and making files in ``out``; outlives an exec.

    False: this host has no Landlock, without which hostile sources are not given to a compiler.
    """
    _give_up(BYTECODE_FILE_MAX_BYTES, COMPILER_THREADS_MAX if threads else 0)
    allow_cpu_for_a_job()
    rights = dict.fromkeys(_folders_of(interpreter), landlock.RUNNING)
    return landlock.restrict_to({**rights, tree: landlock.READING, out: landlock.MAKING_FILES})


def confine_server(memory_max_bytes: int, descriptors_max: int) -> list[str]:
    """Keep the descriptors there are, and no file, network or other process; returns what the host could not
    give. Threads can be started until ``seal_server``."""
    missing = _give_up(0, None, memory_max_bytes, descriptors_max)
    if not landlock.restrict_to({}):
        missing.append("landlock")
    return missing


def seal_server() -> list[str]:
    """No process or thread can be started from now on; returns what the host could not give."""
    _lower(resource.RLIMIT_NPROC, 0)
    return _filter(VOLUME_SERVER)


def _filter(rules: Rules) -> list[str]:
    return [] if seccomp.restrict_to(rules) else ["seccomp"]


def _folders_of(interpreter: str) -> list[str]:
    """The system's programs and libraries, and the interpreter's own folder (``<folder>/bin/python3.13``)."""
    folder = Path(interpreter).resolve().parent.parent
    system = [each for each in ("/usr", "/lib", "/lib64") if Path(each).is_dir()]
    return system if folder == Path("/") else [*system, str(folder)]


def _give_up(
    file_max_bytes: int,
    processes_max: int | None = 0,
    memory_max_bytes: int = MEMORY_MAX_BYTES,
    descriptors_max: int = DESCRIPTORS_MAX,
) -> list[str]:
    missing: list[str] = []
    if _libc.unshare(_CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        missing.append("network namespace")
    for limit, value in (
        (resource.RLIMIT_AS, memory_max_bytes),
        (resource.RLIMIT_FSIZE, file_max_bytes),
        (resource.RLIMIT_NOFILE, descriptors_max),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, processes_max),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        if value is not None:
            _lower(limit, value)
    os.umask(0o077)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        missing.append("no-new-privileges")
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return missing


def allow_cpu_for_a_job(cpu_s: int = CPU_S_PER_JOB) -> None:
    """Give this job so many seconds by moving the soft limit; over it the kernel ends the process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used_s = int(usage.ru_utime + usage.ru_stime)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (used_s + cpu_s, hard))


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (ceiling, ceiling))
