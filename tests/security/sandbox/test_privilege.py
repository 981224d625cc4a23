"""From inside a sandbox: no way to a capability, to another identity, or to a forbidden system call."""

import ctypes
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.driver import MountPoint
from tests.integration.sandbox.running_jail import python, run, shell

ZERO = "0000000000000000"
CALL = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(*arguments):
    ctypes.set_errno(0)
    result = libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return "REACHED" if result != -1 else errno.errorcode[ctypes.get_errno()]
"""


async def test_it_holds_no_capability_and_can_gain_none(driver: ContainerDriver) -> None:
    outcome = await run(
        driver, shell("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; id -u; id -g; id -G")
    )
    fields = dict(line.split(":\t") for line in outcome.output.splitlines() if ":" in line)
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {ZERO}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert outcome.output.splitlines()[-3:] == ["993", "990", "990"]


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that a sandbox may enter."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("kind", ["setuid root", "setuid sandbox root", "file capability"])
async def test_privileged_files_give_nothing(kind: str, driver: ContainerDriver, open_folder: Path) -> None:
    program = open_folder / "gain"
    shutil.copy(
        "/usr/bin/python3.11" if Path("/usr/bin/python3.11").exists() else "/usr/bin/python3", program
    )
    program.chmod(0o755)
    if kind == "setuid root":
        program.chmod(0o4755)
    elif kind == "setuid sandbox root":
        os.chown(program, 0x20000000, 0x20000000)
        program.chmod(0o6755)
    else:
        # VFS_CAP_REVISION_2 with the effective bit and every capability permitted
        os.setxattr(program, "security.capability", bytes.fromhex("01000002ffffffff00000000ffffffff00000000"))
    code = "import os; print(os.getresuid(), [l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')])"
    outcome = await run(
        driver, shell(f'exec /var/task/gain -I -c "{code}"'), mounts={MountPoint.TASK: open_folder}
    )
    assert outcome.output.strip() == f"(993, 993, 993) ['{ZERO}']"


async def test_it_cannot_become_another_user(driver: ContainerDriver) -> None:
    code = CALL + "print([call(n, 0, 0, 0) for n in (117, 119, 105, 106)])"
    if platform.machine() != "x86_64":
        pytest.skip("the numbers are x86_64's")
    outcome = await run(driver, python(code))
    assert "REACHED" not in outcome.output
    assert outcome.output


NUMBERS = {
    "mount": (165, "EPERM"),
    "umount2": (166, "EPERM"),
    "pivot_root": (155, "EPERM"),
    "chroot": (161, "EPERM"),
    "setns": (308, "EPERM"),
    "move_mount": (429, "EPERM"),
    "open_tree": (428, "EPERM"),
    "fsopen": (430, "EPERM"),
    "bpf": (321, "EPERM"),
    "perf_event_open": (298, "EPERM"),
    "keyctl": (250, "EPERM"),
    "add_key": (248, "EPERM"),
    "userfaultfd": (323, "EPERM"),
    "init_module": (175, "EPERM"),
    "kexec_load": (246, "EPERM"),
    "reboot": (169, "EPERM"),
    "swapon": (167, "EPERM"),
    "open_by_handle_at": (304, "EPERM"),
    "clone3": (435, "ENOSYS"),
    "io_uring_setup": (425, "ENOSYS"),
}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are x86_64's")
async def test_forbidden_system_calls(driver: ContainerDriver) -> None:
    numbers = {name: number for name, (number, _) in NUMBERS.items()}
    code = CALL + f"for name, number in {numbers!r}.items(): print(name, call(number, 0, 0, 0, 0, 0))"
    outcome = await run(driver, python(code))
    got = dict(line.split() for line in outcome.output.splitlines())
    assert got.keys() == NUMBERS.keys(), outcome.output
    wrong = {name: answer for name, answer in got.items() if answer not in (NUMBERS[name][1], "ENOSYS")}
    assert not wrong
    assert got["clone3"] == got["io_uring_setup"] == "ENOSYS"


async def test_no_new_namespaces(driver: ContainerDriver) -> None:
    flags = {
        "user": 0x10000000,
        "mount": 0x20000,
        "net": 0x40000000,
        "pid": 0x20000000,
        "uts": 0x4000000,
        "time": 0x80,
    }
    code = CALL + (
        f"for name, flag in {flags!r}.items():\n"
        "  r = libc.unshare(flag); print(name, errno.errorcode[ctypes.get_errno()] if r else 'REACHED')\n"
        f"r = libc.syscall(56, 0x10000011, 0, 0, 0, 0)\nprint('clone', 'REACHED' if r >= 0 else errno.errorcode[ctypes.get_errno()])"
    )
    outcome = await run(driver, python(code))
    assert len(outcome.output.splitlines()) == len(flags) + 1, outcome.output
    assert all(line.endswith("EPERM") for line in outcome.output.splitlines()), outcome.output


async def test_the_init_cannot_be_traced(driver: ContainerDriver) -> None:
    code = CALL + "print(libc.ptrace(16, 1, 0, 0), errno.errorcode[ctypes.get_errno()])"
    assert (await run(driver, python(code))).output.strip() == "-1 EPERM"


SECOND_ABI = r"""
#include <stdio.h>
#include <unistd.h>
#include <sys/syscall.h>
int main(int argc, char **argv) {
    long r;
    (void)argv;
    if (argc > 1) { r = syscall(SYS_getpid | 0x40000000); }
    else { __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory"); }
    printf("%ld\n", r);
    return 0;
}
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86_64 alone has two further ABIs")
@pytest.mark.parametrize("abi", ["int80", "x32"])
async def test_other_abis_of_the_processor_are_closed(
    abi: str, driver: ContainerDriver, open_folder: Path
) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler is needed")
    (open_folder / "abi.c").write_text(SECOND_ABI)
    subprocess.run([compiler, "-O1", "-o", open_folder / "abi", open_folder / "abi.c"], check=True)
    argument = "x" if abi == "x32" else ""
    outcome = await run(
        driver, shell(f"/var/task/abi {argument}; echo $?"), mounts={MountPoint.TASK: open_folder}
    )
    assert outcome.output.startswith(("Bad system call", "-1\n")), outcome.output


async def test_kernel_settings_cannot_be_written(driver: ContainerDriver) -> None:
    paths = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/kernel/modprobe",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/proc/self/uid_map",
        "/proc/1/oom_score_adj",
    ]
    code = (
        "import os, sys\nfor path in sys.argv[1:]:\n"
        "  try: os.write(os.open(path, os.O_WRONLY), b'1'); print('REACHED', path)\n  except OSError as e: print('refused')"
    )
    outcome = await run(driver, python(code, *paths))
    # /proc/sysrq-trigger is covered by /dev/null: writing there succeeds and does nothing.
    assert [line for line in outcome.output.splitlines() if line != "refused"] in (
        [],
        ["REACHED /proc/sysrq-trigger"],
    )


async def test_it_cannot_shield_itself_from_the_out_of_memory_killer(driver: ContainerDriver) -> None:
    code = "import os\ntry: os.write(os.open('/proc/self/oom_score_adj', os.O_WRONLY), b'-1000')\nexcept OSError: pass\nprint(open('/proc/self/oom_score_adj').read())"
    assert int((await run(driver, python(code))).output) >= 500


async def test_masked_kernel_files_tell_nothing(driver: ContainerDriver) -> None:
    script = "for f in kcore keys timer_list kallsyms; do head -c 100 /proc/$f 2>/dev/null; done; ls /proc/acpi 2>/dev/null"
    assert (await run(driver, shell(script))).output == ""


async def test_no_device_node_can_be_made_or_used(driver: ContainerDriver, open_folder: Path) -> None:
    os.mknod(open_folder / "memory", 0o600 | 0o020000, os.makedev(1, 1))
    (open_folder / "memory").chmod(0o666)
    os.mknod(open_folder / "zero", 0o020000, os.makedev(1, 5))
    (open_folder / "zero").chmod(0o666)
    code = (
        "import os\n"
        "def attempt(f):\n  try: f(); print('REACHED')\n  except OSError as e: print('refused')\n"
        "attempt(lambda: os.mknod('/tmp/zero', 0o020666, os.makedev(1, 5)))\n"
        "attempt(lambda: open('/var/task/memory'))\nattempt(lambda: open('/var/task/zero'))"
    )
    outcome = await run(driver, python(code), mounts={MountPoint.TASK: open_folder})
    assert outcome.output.split() == ["refused"] * 3


async def test_it_cannot_unmount_what_covers_proc(driver: ContainerDriver) -> None:
    code = (
        CALL
        + "print(libc.umount2(b'/proc', 2), libc.umount2(b'/var/task', 2), libc.umount2(b'/proc/sys', 2))"
    )
    assert (await run(driver, python(code))).output.strip() == "-1 -1 -1"


def test_this_process_may_do_what_the_sandbox_may_not() -> None:
    """The probes can tell success from refusal: outside, the same calls work."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0:
        pytest.skip("root is needed to show the difference")
    child = os.fork()
    if child == 0:
        os._exit(0 if libc.unshare(0x10000000) == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
