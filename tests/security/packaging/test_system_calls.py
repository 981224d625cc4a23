"""What a packer, a flattener or a volume process that hostile bytes took over can still ask the kernel for."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from stoker.core.threads import CallThreads
from stoker.packaging import seccomp
from stoker.packaging.flatten.flattener import Flattening
from stoker.packaging.packers import PackerPool
from stoker.packaging.volumes.serving import VolumeProcess
from tests.images.flattening import SALT, Flat

pytestmark = pytest.mark.skipif(
    not seccomp.available(), reason="no seccomp in this kernel, or no filter for this processor"
)

CONFINED = {
    "packer": "missing = confine(folder)",
    "flattener": "missing = confine_flattener(2**30)",
    "volume": "missing = confine_server(2**30, 64) + seal_server()",
}
"""As their processes do before the first job."""

DEADLY = {
    "socket": "socket.socket()",
    "a local socket": "socket.socket(socket.AF_UNIX)",
    "execve": "os.execv('/bin/true', ['true'])",
    "fork": "call('fork') if NUMBERS['fork'][column] else call('execveat')",
    "ptrace": "call('ptrace', 0, 0, 0, 0)",
    "read another's memory": "call('process_vm_readv', os.getppid(), 0, 0, 0, 0, 0)",
    "mount": "call('mount', b'none', b'/tmp', b'tmpfs', 0, 0)",
    "new mounts": "call('fsopen', b'tmpfs', 0)",
    "chroot": "os.chroot('/')",
    "a new user namespace": "call('unshare', 0x10000000)",
    "io_uring": "call('io_uring_setup', 1, ctypes.create_string_buffer(120))",
    "bpf": "call('bpf', 0, 0, 0)",
    "keys": "call('keyctl', 0, 0, 0, 0, 0)",
    "a program in memory": "os.memfd_create('x')",
    "faults of its own": "call('userfaultfd', 0)",
    "a handle": "call('open_by_handle_at', 0, 0, 0)",
    "another's descriptors": "call('pidfd_open', os.getppid(), 0)",
}

REFUSED = {
    "open": "os.open(secret, os.O_RDONLY)",
    "open in its folder": "os.open('inside', os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=below)",
    "write what is there": "os.open('inside', os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=below)",
    "truncate": "os.truncate(secret, 0)",
    "remove": "os.unlink('inside', dir_fd=below)",
    "rename": "os.rename('inside', 'other', src_dir_fd=below, dst_dir_fd=below)",
    "link": "os.link('inside', 'other', src_dir_fd=below, dst_dir_fd=below)",
    "change times of a path": "os.utime(secret, (0, 0))",
    "change rights of a path": "os.chmod(secret, 0o777)",
    "signal": "os.kill(os.getppid(), 0)",
    "set-uid": "os.setuid(os.getuid())",
    "watch": "check(libc.inotify_init1(0))",
    "ask a device": "fcntl.ioctl(below, 0x5401, bytearray(60))",
    "own signals of a descriptor": "fcntl.fcntl(below, fcntl.F_SETOWN, os.getppid())",
    "raise a limit": "check(libc.setrlimit(resource.RLIMIT_FSIZE, struct.pack('QQ', 2**20, 2**20)))",
    "limit another": "check(libc.prlimit(os.getppid(), resource.RLIMIT_CPU, 0, struct.pack('QQ', 1, 1)))",
    "memory that runs": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "memory made to run": "check(libc.mprotect(page, 4096, mmap.PROT_EXEC))",
    "a process": "check(libc.syscall(NUMBERS['clone'][column], signal.SIGCHLD, 0, 0, 0, 0))",
    "another personality": "check(libc.personality(0xFFFFFFFF))",
}

PREPARED = """
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, struct, sys, threading
from stoker.packaging.confinement import *
from stoker.packaging.seccomp import ARCHITECTURES
from stoker.packaging.system_calls import NUMBERS
from stoker.packaging.unpack import NEW_FILE_FLAGS
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
column = ARCHITECTURES[os.uname().machine].column
folder, secret = sys.argv[1], sys.argv[2]
below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
page = ctypes.c_void_p(libc.mmap(None, 4096, 3, 0x22, -1, 0))
def call(name, *arguments):
    return libc.syscall(NUMBERS[name][column], *arguments)
def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
def attempt(what):
    try:
        exec(what)
        print("allowed")
    except OSError as problem:
        print(errno.errorcode[problem.errno])
"""


DIE_IN_CHILDREN = """
for code in {attempts}:
    child = os.fork()
    if child == 0:
        try:
            {confined}
            exec(code)
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def run(role: str, code: str, folder: Path, confined: str | None = None) -> subprocess.CompletedProcess[str]:
    (folder / "below").mkdir(exist_ok=True)
    (folder / "below" / "inside").write_text("x")
    (folder / "secret").write_text("secret")
    if confined is None:
        confined = CONFINED[role] + "\nassert 'seccomp' not in missing\n"
    script = PREPARED + confined + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-I", "-c", script, str(folder / "below"), str(folder / "secret")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("role", CONFINED)
def test_what_it_never_needs_ends_it(tmp_path: Path, role: str) -> None:
    done = run(
        role, DIE_IN_CHILDREN.format(confined=CONFINED[role], attempts=list(DEADLY.values())), tmp_path, ""
    )
    assert done.returncode == 0, done.stderr
    ends = [int(end) for end in done.stdout.split()]
    assert dict(zip(DEADLY, ends, strict=True)) == dict.fromkeys(DEADLY, -signal.SIGSYS)


@pytest.mark.parametrize("role", CONFINED)
def test_what_it_may_not_is_refused(tmp_path: Path, role: str) -> None:
    done = run(role, "".join(f"attempt({each!r})\n" for each in REFUSED.values()), tmp_path)
    assert done.returncode == 0, done.stderr
    assert dict(zip(REFUSED, done.stdout.split(), strict=True)) == dict.fromkeys(REFUSED, "EPERM")
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "below" / "inside").read_text() == "x"


@pytest.mark.parametrize(
    ("role", "answer"), [("packer", "EPERM"), ("flattener", "allowed"), ("volume", "EPERM")]
)
def test_only_a_flattener_starts_threads(tmp_path: Path, role: str, answer: str) -> None:
    started = """
        try:
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
            print("allowed")
        except RuntimeError:
            print("EPERM")
    """
    assert run(role, started, tmp_path).stdout.strip() == answer


@pytest.mark.parametrize(
    ("role", "answer"), [("flattener", "EPERM"), ("volume", "EPERM"), ("packer", "allowed")]
)
def test_only_a_packer_makes_files(tmp_path: Path, role: str, answer: str) -> None:
    made = """
        attempt("os.mkdir('made', dir_fd=below)")
        attempt("os.symlink('x', 'link', dir_fd=below)")
        attempt("os.open('new', NEW_FILE_FLAGS, 0o600, dir_fd=below)")
    """
    assert run(role, made, tmp_path).stdout.split() == [answer] * 3


def test_calls_of_other_processors_end_it(tmp_path: Path) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("only x86_64 has a second table of calls")
    done = run("packer", "libc.syscall(0x40000000 + 39)", tmp_path)
    assert done.returncode == -signal.SIGSYS


def filtered_threads(pid: int) -> list[str]:
    """The seccomp mode of every thread of a process."""
    found: list[str] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        status = (thread / "status").read_text()
        found.append(status.partition("\nSeccomp:")[2].split()[0])
    return found


async def test_the_real_packer_is_filtered(tmp_path: Path) -> None:
    pool = PackerPool(tmp_path / "staging")
    await pool.start()
    assert "seccomp" not in pool.missing
    assert [filtered_threads(pid) for pid in pool.pids] == [["2"]]
    await pool.close()


async def test_the_real_flattener_is_filtered() -> None:
    with tempfile.TemporaryFile() as scratch:
        async with Flattening(salt=SALT, scratch=scratch.fileno(), store=Flat().store) as flattening:
            assert "seccomp" not in flattening.missing
            assert set(filtered_threads(flattening.pid)) == {"2"}


async def test_every_thread_of_the_real_volume_process_is_filtered() -> None:
    threads = CallThreads("test", threads_max=4)
    process = VolumeProcess(threads, 64 << 20, lambda _: None)
    await process.start()
    assert "seccomp" not in process.missing
    assert process.pid is not None
    modes = filtered_threads(process.pid)
    assert modes == ["2"] * len(modes)
    assert len(modes) > 1
    await process.close()
