"""What is read of processes, on processes of the test's own."""

import subprocess

from bench.machine import cpu_s, cpu_spent_s, descendants, named, pss_bytes


def test_processes_below_one() -> None:
    shell = subprocess.Popen(["/bin/sh", "-c", "sleep 30 & wait"], start_new_session=True)
    try:
        while not named(descendants(shell.pid), "sleep"):
            assert shell.poll() is None
        (sleeper,) = named(descendants(shell.pid), "sleep")
        assert descendants(sleeper) == []
        assert pss_bytes([sleeper]) > 0
        assert cpu_s([sleeper, 2**22 + 1]).keys() == {sleeper}
        subprocess.run(["kill", str(sleeper)], check=True)
    finally:
        shell.kill()
        shell.wait()


def test_cpu_time_of_what_is_still_there() -> None:
    assert cpu_spent_s({1: 2.0, 2: 50.0}, {1: 5.0, 3: 0.5}) == 3.5
