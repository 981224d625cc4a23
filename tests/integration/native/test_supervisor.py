"""The supervisor: what its children are given and denied, restarts, ends, locks, and its own violent death."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.native.jailparts import FLAGS, SOURCES, missing_programs

MISSING = missing_programs("cc", "python3")
ROOT = os.geteuid() == 0
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing on this host: {MISSING}")
needs_root = pytest.mark.skipif(not ROOT, reason="gives up root: needs root")
UID, GID = (54321, 54322) if ROOT else (os.geteuid(), os.getegid())
ANY_PYTHON = "/usr/bin/python3"  # any user can read it; a virtual environment's may be closed
PARTS = ["supervisor", "supervisor_children", "supervisor_rootless", "supervisor_set_up", "system_tool"]

# What a child sees of itself, written where the test finds it.
REPORT = """#!/usr/bin/python3
import json, os, signal, socket, stat, sys, time
def status(): return dict(l.split(':\\t', 1) for l in open('/proc/self/status').read().splitlines() if ':\\t' in l)
def report(role):
    fds = [int(n) for n in os.listdir('/proc/self/fd')]
    def is_open(n):
        try: os.fstat(n); return True
        except OSError: return False
    seen = status()
    text = json.dumps(dict(pid=os.getpid(), argv=sys.argv, environment=dict(os.environ),
        fds=[n for n in fds if is_open(n)], pgid=os.getpgid(0), uids=os.getresuid(), gids=os.getresgid(),
        groups=os.getgroups(), caps=[seen[k] for k in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')],
        no_new_privs=seen['NoNewPrivs'], blocked=seen['SigBlk'], uid_map=open('/proc/self/uid_map').read().split()))
    print('REPORT', role, text, flush=True)
"""
SERVICE = REPORT + "report('service')\nsignal.pause()\n"
JAIL = (
    REPORT
    + """
report('jail')
listener = socket.socket(fileno=3)
listener.setblocking(True)
while True:
    client, _ = listener.accept()
    client.send(str(os.getpid()).encode())
"""
)


class Supervised:
    """A supervisor with a jail and a service that are scripts of the test's."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program, self._folder = program, folder
        self.data = folder / "deep" / "data"
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def script(self, name: str, text: str) -> Path:
        path = self._folder / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def command(self, service: str = SERVICE, jail: str = JAIL, uid: int = UID) -> list[str]:
        return [
            str(self._program),
            *("--uid", str(uid), "--gid", str(GID), "--data", str(self.data)),
            *("--run-dir", str(self.data / "run"), "--jail", str(self.script("jail", jail))),
            *("--jail-arg", "--no-egress", "--jail-arg", "x", "--"),
            *(str(self.script("service", service)), "one", "--two"),
        ]

    def start(self, service: str = SERVICE, jail: str = JAIL) -> "Supervised":
        environment = {**os.environ, "SECRET_OF_THE_SERVICE": "s3cret"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(service, jail), stdout=log, stderr=log, env=environment, cwd="/"
            )
        return self

    def said(self) -> str:
        return self.log.read_text()

    def reports(self, role: str) -> list[dict[str, Any]]:
        """Both processes write to one log, a report in one piece; its line's end may come after another's."""
        text, decoder = self.said(), json.JSONDecoder()
        begins = [match.end() for match in re.finditer(rf"REPORT {role} (?=.*\}})", text)]
        return [decoder.raw_decode(text, begin)[0] for begin in begins]

    def wait_report(self, role: str, count: int = 1) -> dict[str, Any]:
        wait_until(lambda: len(self.reports(role)) >= count, self.said)
        return self.reports(role)[count - 1]

    def wait_end(self, timeout_s: float = 20) -> int:
        assert self.process is not None
        return self.process.wait(timeout_s)

    def jail_answers(self) -> int:
        """The pid that answers at the jail's socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(5)
            client.connect(str(self.data / "run" / "jail.sock"))
            return int(client.recv(100))

    def clean(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def wait_until(true: Callable[[], bool], words: Callable[[], str] = str, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, words()
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("bin") / "stoker-supervisor"
    subprocess.run(["cc", *FLAGS, "-o", built, *[SOURCES / f"{part}.c" for part in PARTS]], check=True)
    return built


@pytest.fixture
def supervised(program: Path) -> Iterator[Supervised]:
    with tempfile.TemporaryDirectory(prefix="supervised-") as folder:
        Path(folder).chmod(0o755)
        made = Supervised(program, Path(folder))
        yield made
        made.clean()
        time.sleep(0.05)


@needs_root
def test_the_service_holds_no_privilege(supervised: Supervised) -> None:
    service = supervised.start().wait_report("service")
    assert service["uids"] == [UID] * 3
    assert service["gids"] == [GID] * 3
    assert service["groups"] == []
    assert service["caps"] == ["0" * 16] * 5
    assert service["no_new_privs"] == "1"
    assert service["blocked"] == "0" * 16


CAP_SYS_RESOURCE = 24


@needs_root
def test_when_memory_runs_out_others_go_first(supervised: Supervised) -> None:
    supervised.start().wait_report("service")
    supervised.wait_report("jail")
    effective = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert effective
    assert supervised.process
    children = (
        Path(f"/proc/{supervised.process.pid}/task/{supervised.process.pid}/children").read_text().split()
    )
    scores = sorted(int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in children)
    if not int(effective[1], 16) >> CAP_SYS_RESOURCE & 1:
        assert scores == [0, 0], "and they run all the same"
        pytest.skip("CAP_SYS_RESOURCE is missing: without it no score can be lowered")
    assert scores == [-900, -500]


def test_children_get_what_they_need_and_nothing_else(supervised: Supervised) -> None:
    supervised.start()
    service, jail = supervised.wait_report("service"), supervised.wait_report("jail")
    run = supervised.data / "run"
    assert service["argv"][1:] == ["one", "--two"]
    assert service["environment"]["STOKER_JAIL_SOCKET"] == str(run / "jail.sock")
    assert service["environment"]["SECRET_OF_THE_SERVICE"] == "s3cret"
    assert service["fds"] == [0, 1, 2]
    assert service["pgid"] == service["pid"]
    peer = str(UID) if ROOT else "0"
    state = str(supervised.data / "jail")
    assert jail["argv"][1:] == ["--state-dir", state, "--peer-uid", peer, "--no-egress", "x"]
    assert set(jail["environment"]) - {"LC_CTYPE"} == {"PATH", "LC_ALL"}
    assert jail["fds"] == [0, 1, 2, 3]
    assert jail["uids"] == [0, 0, 0]


@needs_root
def test_folders_belong_to_root_and_admit_the_service(supervised: Supervised) -> None:
    supervised.start().wait_report("service")
    run = supervised.data / "run"
    for folder in (supervised.data, run):
        found = folder.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, GID, 0o1770)
    found = (run / "jail.sock").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, GID, 0o660)
    assert (supervised.data / "jail").stat().st_mode & 0o7777 == 0o700
    attack = f"""
import os
os.setgroups([]); os.setresgid({GID}, {GID}, {GID}); os.setresuid({UID}, {UID}, {UID})
os.chdir({str(supervised.data)!r})
open('mine', 'w').close(); open('run/mine.sock', 'w').close()
for act in (lambda: os.rename('run', 'other'), lambda: os.rename('jail', 'other'), lambda: os.rmdir('jail'),
            lambda: os.unlink('run/jail.sock'), lambda: os.listdir('jail'), lambda: os.unlink('run/supervisor.lock'),
            lambda: os.chmod('.', 0o777)):
    try: act()
    except PermissionError: continue
    raise SystemExit('it could')
"""
    subprocess.run([ANY_PYTHON, "-c", attack], check=True)


def test_the_listener_outlives_the_jail(supervised: Supervised) -> None:
    supervised.start()
    first = supervised.wait_report("jail")
    if ROOT:
        assert supervised.jail_answers() == first["pid"]
    os.kill(jail_pid(supervised), signal.SIGKILL)
    answered = supervised.jail_answers()  # connects at once, is answered by the next one
    second = supervised.wait_report("jail", 2)
    assert answered == second["pid"]
    supervised.wait_report("service")
    assert len(supervised.reports("service")) == 1, "the service did not need a restart"
    assert "the jail was killed by signal 9" in supervised.said()


def jail_pid(supervised: Supervised) -> int:
    assert supervised.process is not None
    children = Path(f"/proc/{supervised.process.pid}/task/{supervised.process.pid}/children").read_text()
    for pid in children.split():
        if "--state-dir" in Path(f"/proc/{pid}/cmdline").read_text():
            return int(pid)
    raise AssertionError("no jail")


def test_a_killed_service_is_started_again(supervised: Supervised) -> None:
    first = supervised.start().wait_report("service")
    os.kill(first["pid"], signal.SIGKILL)
    second = supervised.wait_report("service", 2)
    assert second["pid"] != first["pid"]
    assert len(supervised.reports("jail")) == 1


def test_what_a_dead_service_left_running_is_killed(supervised: Supervised) -> None:
    straggler = SERVICE.replace(
        "signal.pause()",
        "pid = os.fork()\nif pid: print('STRAGGLER', pid, flush=True)\nsignal.pause()",
    )
    first = supervised.start(straggler).wait_report("service")
    wait_until(lambda: "STRAGGLER" in supervised.said())
    left = int(re.findall(r"STRAGGLER (\d+)", supervised.said())[0])
    os.kill(first["pid"], signal.SIGKILL)
    wait_until(lambda: not alive(left))


@pytest.mark.parametrize(("status", "expected", "runs"), [(0, 0, 1), (78, 78, 1), (3, 70, 6)])
def test_how_the_service_ends_decides(supervised: Supervised, status: int, expected: int, runs: int) -> None:
    service = REPORT + f"report('service')\nsys.exit({status})\n"
    supervised.start(service)
    assert supervised.wait_end() == expected
    assert len(supervised.reports("service")) == runs
    if expected == 70:
        assert "the service failed 6 times in a row" in supervised.said()
    for jail in supervised.reports("jail") if ROOT else []:
        assert not alive(jail["pid"])


def test_a_jail_that_keeps_failing_ends_it_all(supervised: Supervised) -> None:
    supervised.start(jail=REPORT + "report('jail')\nsys.exit(1)\n")
    service = supervised.wait_report("service")
    assert supervised.wait_end() == 70
    assert "the jail failed 6 times in a row" in supervised.said()
    assert not alive(service["pid"])


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_service_then_the_jail(supervised: Supervised, how: signal.Signals) -> None:
    polite = "import time\ndef bye(*_):\n    time.sleep({}); print('{} ends', flush=True); os._exit(0)\n"
    hook = "signal.signal(signal.SIGTERM, bye)\n"
    service = (
        REPORT + polite.format(0.3, "service") + hook + "report('service')\nwhile True: signal.pause()\n"
    )
    jail = REPORT + polite.format(0, "jail") + hook + "report('jail')\nwhile True: signal.pause()\n"
    supervised.start(service, jail)
    supervised.wait_report("service")
    supervised.wait_report("jail")
    assert supervised.process is not None
    supervised.process.send_signal(how)
    assert supervised.wait_end() == 0
    assert re.findall(r"(\w+) ends", supervised.said()) == ["service", "jail"]


def test_a_second_signal_does_not_wait(supervised: Supervised) -> None:
    stubborn = REPORT + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nreport('service')\n"
    supervised.start(stubborn + "while True: signal.pause()\n").wait_report("service")
    assert supervised.process is not None
    began = time.monotonic()
    supervised.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert supervised.process.poll() is None
    supervised.process.send_signal(signal.SIGINT)
    assert supervised.wait_end() == 0
    assert time.monotonic() - began < 5
    assert "the service did not stop: killing it" in supervised.said()


def test_both_die_with_a_killed_supervisor_and_the_next_starts(supervised: Supervised) -> None:
    supervised.start()
    service = supervised.wait_report("service")
    supervised.wait_report("jail")
    jail = jail_pid(supervised)
    assert supervised.process is not None
    supervised.process.kill()
    supervised.process.wait()
    wait_until(lambda: not alive(service["pid"]) and not alive(jail))
    supervised.start().wait_report("service", 2)
    supervised.wait_report("jail", 2)


def test_a_second_start_says_who_is_there(supervised: Supervised) -> None:
    supervised.start().wait_report("service")
    assert supervised.process is not None
    second = subprocess.run(supervised.command(), capture_output=True, text=True, timeout=10, check=False)
    assert second.returncode == 75
    assert f"is in use by the Stoker with process id {supervised.process.pid}" in second.stderr
    assert supervised.process.poll() is None


def test_wrong_set_ups_are_refused_with_words(supervised: Supervised) -> None:
    def refusal(command: list[str]) -> tuple[int, str]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return done.returncode, done.stderr

    if ROOT:
        assert refusal(supervised.command(uid=0)) == (
            2,
            "stoker-supervisor: the service never runs as root: --uid and --gid\n",
        )
    command = supervised.command()
    status, words = refusal([*command[:1], *command[-2:]])
    assert (status, "usage:" in words) == (2, True)
    missing = [part.replace("/jail", "/nowhere") if part.endswith("/jail") else part for part in command]
    status, words = refusal(missing)
    assert (status, "nowhere: No such file" in words) == (78, True)
    supervised.data.mkdir(parents=True)
    (supervised.data / "somebody's").touch()
    if ROOT:
        status, words = refusal(command)
        assert (status, "is not empty: not a data folder" in words) == (78, True)


@needs_root
def test_as_an_ordinary_user_the_jail_is_root_of_a_user_namespace(
    program: Path, supervised: Supervised
) -> None:
    folder = supervised.data.parent
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    copy = folder / "stoker-supervisor"
    copy.write_bytes(program.read_bytes())
    copy.chmod(0o755)
    command = supervised.command(uid=65534)
    command[0] = str(copy)
    command[command.index("--gid") + 1] = "65534"
    with supervised.log.open("ab") as log:
        supervised.process = subprocess.Popen(
            command, stdout=log, stderr=log, user=65534, group=65534, extra_groups=[], cwd="/"
        )
    service, jail = supervised.wait_report("service"), supervised.wait_report("jail")
    assert service["uids"] == [65534] * 3
    assert service["no_new_privs"] == "1"
    assert jail["uids"] == [0, 0, 0]
    assert jail["uid_map"][:3] == ["0", "65534", "1"]
    assert jail["argv"][3:5] == ["--peer-uid", "0"]
    assert int(jail["caps"][2], 16) != 0
