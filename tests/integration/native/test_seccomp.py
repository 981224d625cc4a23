"""The system call filter: real interpreters work under it, and every forbidden call is refused as promised."""

import ctypes
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.native.jailparts import FLAGS, LIBC, SOURCES, missing_programs

MISSING = missing_programs("cc")
MACHINE = os.uname().machine
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"missing on this host: {MISSING}"),
    pytest.mark.skipif(
        MACHINE not in ("x86_64", "aarch64"), reason=f"there is no system call filter for {MACHINE}"
    ),
]
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2

PYTHON_AT_WORK = """
import asyncio, concurrent.futures, ctypes, hashlib, mmap, multiprocessing, os, random, signal, socket, sqlite3
import ssl, subprocess, tempfile, threading, time, urllib.request, zlib
from http.server import BaseHTTPRequestHandler, HTTPServer

class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'hello')
    def log_message(self, *args): pass

def square(n): return n * n

async def work():
    process = await asyncio.create_subprocess_exec('echo', 'child', stdout=subprocess.PIPE)
    return (await process.communicate())[0]

if __name__ == '__main__':
    assert subprocess.check_output(['sh', '-c', 'echo from a shell | cat']) == b'from a shell\\n'
    server = HTTPServer(('127.0.0.1', 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}/'
    assert urllib.request.urlopen(url).read() == b'hello'
    assert asyncio.run(work()) == b'child\\n'
    with multiprocessing.Pool(2) as pool: assert pool.map(square, [1, 2]) == [1, 4]
    with concurrent.futures.ThreadPoolExecutor() as pool: assert list(pool.map(square, [3])) == [9]
    socket.getaddrinfo('localhost', 80); socket.if_nameindex(); socket.socketpair()
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(folder + '/x.db'); database.execute('create table t (n)')
        os.mkfifo(folder + '/fifo'); os.symlink('a', folder + '/b'); os.statvfs(folder)
    mmap.mmap(-1, 4096); ssl.create_default_context(); hashlib.sha256(os.urandom(32)); time.sleep(0.001)
    os.sched_getaffinity(0); os.nice(0); os.memfd_create('x'); os.eventfd(0); os.getxattr
    signal.setitimer(signal.ITIMER_REAL, 10); signal.alarm(0); os.setsid
    print('done')
"""
NODE_AT_WORK = """
const { execFileSync, spawnSync } = require('child_process'), http = require('http'), fs = require('fs');
const os = require('os'), path = require('path'), dns = require('dns'), { Worker } = require('worker_threads');
(async () => {
  if (String(execFileSync('echo', ['child'])) !== 'child\\n') throw new Error('child');
  if (spawnSync(process.execPath, ['-e', '0']).status !== 0) throw new Error('node in node');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'seccomp-'));
  await fs.promises.writeFile(folder + '/a', 'x'.repeat(1 << 20));
  await fs.promises.copyFile(folder + '/a', folder + '/b');
  fs.rmSync(folder, { recursive: true });
  const server = http.createServer((_, answer) => answer.end('hello'));
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
  const text = await (await fetch(`http://127.0.0.1:${server.address().port}/`)).text();
  if (text !== 'hello') throw new Error(text);
  server.close();
  await new Promise((resolve, reject) => {
    const worker = new Worker('require("worker_threads").parentPort.postMessage(42)', { eval: true });
    worker.on('message', resolve); worker.on('error', reject);
  });
  await dns.promises.lookup('localhost'); os.networkInterfaces(); os.cpus();
  require('crypto').randomBytes(16); require('zlib').gzipSync('x');
  console.log('done'); process.exit(0);
})().catch(error => { console.error(error); process.exit(1); });
"""
OTHERS = {
    "java": (["java", "--version"], ""),
    "ruby": (["ruby", "-e", "require 'socket'; Thread.new { `echo x` }.join; puts 'done'"], "done"),
    "dotnet": (["dotnet", "--info"], ""),
    "go": (["go", "version"], "go"),
    "perl": (["perl", "-e", "print `echo done`"], "done"),
}
DENIED = [
    # name, x86_64, aarch64, errno, arguments
    ("unshare user", 272, 97, errno.EPERM, (0x10000000,)),
    ("setns", 308, 268, errno.EPERM, (0, 0)),
    ("mount", 165, 40, errno.EPERM, (0, 0, 0, 0, 0)),
    ("umount2", 166, 39, errno.EPERM, (0, 0)),
    ("pivot_root", 155, 41, errno.EPERM, (0, 0)),
    ("chroot", 161, 51, errno.EPERM, (0,)),
    ("open_tree", 428, 428, errno.EPERM, (-100, 0, 1)),
    ("move_mount", 429, 429, errno.EPERM, (-1, 0, -1, 0, 0)),
    ("fsopen", 430, 430, errno.EPERM, (0, 0)),
    ("fsmount", 432, 432, errno.EPERM, (0, 0, 0)),
    ("mount_setattr", 442, 442, errno.EPERM, (0, 0, 0, 0, 0)),
    ("bpf", 321, 280, errno.EPERM, (0, 0, 0)),
    ("perf_event_open", 298, 241, errno.EPERM, (0, 0, -1, -1, 0)),
    ("ptrace", 101, 117, errno.EPERM, (0, 0, 0, 0)),
    ("process_vm_readv", 310, 270, errno.EPERM, (0, 0, 0, 0, 0, 0)),
    ("pidfd_getfd", 438, 438, errno.EPERM, (0, 0, 0)),
    ("keyctl", 250, 219, errno.EPERM, (0, -3)),
    ("add_key", 248, 217, errno.EPERM, (0, 0, 0, 0, 0)),
    ("request_key", 249, 218, errno.EPERM, (0, 0, 0, 0)),
    ("kexec_load", 246, 104, errno.EPERM, (0, 0, 0, 0)),
    ("init_module", 175, 105, errno.EPERM, (0, 0, 0)),
    ("finit_module", 313, 273, errno.EPERM, (0, 0, 0)),
    ("userfaultfd", 323, 282, errno.EPERM, (0,)),
    ("open_by_handle_at", 304, 265, errno.EPERM, (0, 0, 0)),
    ("fanotify_init", 300, 262, errno.EPERM, (0, 0)),
    ("syslog", 103, 116, errno.EPERM, (10, 0, 0)),
    ("reboot", 169, 142, errno.EPERM, (0, 0, 0, 0)),
    ("swapon", 167, 224, errno.EPERM, (0, 0)),
    ("sethostname", 170, 161, errno.EPERM, (0, 0)),
    ("clock_settime", 227, 112, errno.EPERM, (0, 0)),
    ("quotactl", 179, 60, errno.EPERM, (0, 0, 0, 0)),
    ("clone with a user namespace", 56, 220, errno.EPERM, (0x10000000 | 17, 0, 0, 0, 0)),
    ("clone with a network namespace", 56, 220, errno.EPERM, (0x40000000 | 17, 0, 0, 0, 0)),
    ("clone with high bits", 56, 220, errno.EPERM, (0xDEAD_0000_2000_0011, 0, 0, 0, 0)),
    ("clone3", 435, 435, errno.ENOSYS, (0, 0)),
    ("io_uring_setup", 425, 425, errno.ENOSYS, (8, 0)),
    ("io_uring_enter", 426, 426, errno.ENOSYS, (0, 0, 0, 0, 0, 0)),
    ("a call from the future", 511, 511, errno.ENOSYS, ()),
    ("personality without randomisation", 135, 92, errno.EPERM, (0x0040000,)),
    ("AF_PACKET socket", 41, 198, errno.EAFNOSUPPORT, (17, 3, 0)),
    ("AF_ALG socket", 41, 198, errno.EAFNOSUPPORT, (38, 5, 0)),
    ("AF_VSOCK socket", 41, 198, errno.EAFNOSUPPORT, (40, 1, 0)),
    ("netfilter netlink socket", 41, 198, errno.EAFNOSUPPORT, (16, 3, 12)),
    ("SCTP socket", 41, 198, errno.EAFNOSUPPORT, (2, 1, 132)),
    ("TIPC socketpair", 53, 199, errno.EAFNOSUPPORT, (30, 5, 0, 0)),
    ("TIOCSTI", 16, 29, errno.EPERM, (0, 0x5412, 0)),
    ("TIOCSTI with high bits", 16, 29, errno.EPERM, (0, 0xFF_0000_5412, 0)),
    ("btrfs subvolume", 16, 29, errno.EPERM, (0, 0x5000940E, 0)),
    ("btrfs subvolume v2", 16, 29, errno.EPERM, (0, 0x50009418, 0)),
]
PASSED = [
    ("FICLONE", 16, 29, (-1, 0x40049409, -1), errno.EBADF),
    ("TCGETS", 16, 29, (-1, 0x5401, 0), errno.EBADF),
    ("personality asked", 135, 92, (0xFFFFFFFF,), 0),
    ("routing netlink socket", 41, 198, (16, 3, 0), 0),
    ("UDP over IPv6 socket", 41, 198, (10, 2, 17), 0),
    ("UNIX socket", 41, 198, (1, 1, 0), 0),
]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], None]:
    """What the child does last: no new privileges, then the filter."""
    folder = tmp_path_factory.mktemp("seccomp")
    compiler = folder / "seccomp_compile"
    subprocess.run(["cc", *FLAGS, "-o", compiler, SOURCES / "seccomp_compile.c"], check=True)
    program = subprocess.run([compiler], check=True, capture_output=True).stdout
    (folder / "seccomp_program.h").write_bytes(program)
    program = subprocess.run([compiler, "zygote"], check=True, capture_output=True).stdout
    (folder / "seccomp_zygote_program.h").write_bytes(program)
    library = folder / "libfilter.so"
    source = SOURCES / "seccomp.c"
    subprocess.run(["cc", *FLAGS, "-fPIC", "-shared", f"-I{folder}", "-o", library, source], check=True)
    filter_of = ctypes.CDLL(str(library)).seccomp_filter
    filter_of.restype = ctypes.POINTER(Program)
    assert filter_of().contents.length < 1000

    def confine() -> None:
        if LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or LIBC.prctl(
            PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_of(), 0, 0
        ):
            raise OSError(ctypes.get_errno(), "the kernel refused the filter")

    return confine


def run(install: Callable[[], None], command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, preexec_fn=install, capture_output=True, text=True, timeout=60, check=False
    )


def call_under_filter(install: Callable[[], None], number: int, arguments: tuple[int, ...]) -> int:
    """The errno of one raw system call in a confined child; 0 when it succeeded."""
    pid = os.fork()
    if pid == 0:
        try:
            install()
            result = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
            os._exit(ctypes.get_errno() if result == -1 else 0)
        finally:
            os._exit(255)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_python_works_under_the_filter(install: Callable[[], None], tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(PYTHON_AT_WORK)
    done = run(install, [sys.executable, str(script)])
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="node is missing on this host")
def test_node_works_under_the_filter(install: Callable[[], None], tmp_path: Path) -> None:
    script = tmp_path / "work.js"
    script.write_text(NODE_AT_WORK)
    done = run(install, ["node", str(script)])
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.parametrize("name", OTHERS)
def test_other_runtimes_work_under_the_filter(install: Callable[[], None], name: str) -> None:
    command, expected = OTHERS[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{name} is missing on this host")
    done = run(install, command)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


@pytest.mark.parametrize("case", DENIED, ids=[case[0] for case in DENIED])
def test_forbidden_calls_are_refused(
    install: Callable[[], None], case: tuple[str, int, int, int, tuple[int, ...]]
) -> None:
    _, x86_64, aarch64, expected, arguments = case
    number = x86_64 if MACHINE == "x86_64" else aarch64
    assert call_under_filter(install, number, arguments) == expected


@pytest.mark.parametrize("case", PASSED, ids=[case[0] for case in PASSED])
def test_their_harmless_neighbours_pass(
    install: Callable[[], None], case: tuple[str, int, int, tuple[int, ...], int]
) -> None:
    _, x86_64, aarch64, arguments, expected = case
    assert call_under_filter(install, x86_64 if MACHINE == "x86_64" else aarch64, arguments) == expected


@pytest.mark.skipif(MACHINE != "x86_64", reason="only x86_64 has a 32-bit and an x32 entry")
def test_other_ways_into_the_kernel_are_closed(install: Callable[[], None]) -> None:
    assert call_under_filter(install, 0x40000000 | 39, ()) == errno.ENOSYS  # getpid by x32
    code = bytes.fromhex("b814000000cd80c3")  # mov eax, 20; int 0x80; ret: getpid by the 32-bit door
    script = (
        "import ctypes, mmap; m = mmap.mmap(-1, 4096, prot=7); m.write(bytes.fromhex('%s'));"
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"
    ).replace("%s", code.hex())
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    assert run(install, [sys.executable, "-c", script]).returncode == -signal.SIGSYS


def test_the_filter_cannot_be_taken_off(install: Callable[[], None]) -> None:
    script = (
        "import ctypes; libc = ctypes.CDLL(None); assert libc.prctl(22, 0, 0, 0, 0) == -1;"
        "assert libc.prctl(38, 0, 0, 0, 0) == -1; print(open('/proc/self/status').read())"
    )
    done = run(install, [sys.executable, "-c", script])
    assert "Seccomp:\t2" in done.stdout, done.stderr
    assert "NoNewPrivs:\t1" in done.stdout
