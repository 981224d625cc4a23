"""Sandboxes forked from one zygote share an owner: what the kernel counts for it, none can take from the others."""

import re
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.sandbox.running_jail import missing
from tests.running import RunningStoker

SIBLINGS = 3
POOLED_WITHIN_S = 20.0
LEFT_FOR_ALL = 64
"""As many siblings as one zygote has."""

SOURCE = """
import ctypes, errno, os, signal
LIBC = ctypes.CDLL(None, use_errno=True)
HELD = []
SIGNAL = signal.SIGRTMIN + 3

def taken(call, most):
    for count in range(most):
        if call() < 0:
            return count
    return most

def watches(wanted):
    while len(HELD) < wanted:
        fd = LIBC.inotify_init1(0)
        if fd < 0:
            break
        HELD.append(fd)
    return len(HELD)

def queued():
    return LIBC.sigqueue(os.getpid(), SIGNAL, ctypes.c_void_p(0))

def timer():
    return LIBC.timer_create(1, None, ctypes.create_string_buffer(8))

def lambda_handler(event, context):
    signal.pthread_sigmask(signal.SIG_BLOCK, [SIGNAL])
    most = event["most"]
    return {
        "zygote": "STOKER_POOLED=zygote" in open("/proc/self/environ").read(),
        "watches": watches(most),
        "timers": taken(timer, 1) if most == 1 else 0,
        "signals": taken(queued, most),
    }
"""


@pytest.fixture(scope="module")
def stoker() -> Iterator[RunningStoker]:
    if missing():
        pytest.skip(missing())
    running = RunningStoker()
    running.start()
    for number in range(SIBLINGS + 1):
        running.create_python(f"sibling{number}", SOURCE, Timeout=60)
    running.invoke(f"sibling{SIBLINGS}", {"most": 1})  # pools fill once somebody wants a runtime
    yield running
    running.remove()


def wait_for_pooled(running: RunningStoker) -> None:
    """Until a process that was forked waits for its function."""
    deadline_s = time.monotonic() + POOLED_WITHIN_S
    while time.monotonic() < deadline_s:
        with urllib.request.urlopen(f"{running.endpoint}/metrics") as answer:
            found = re.search(r"^stoker_worker_pool_size (\d+)", answer.read().decode(), re.MULTILINE)
        if found and int(found[1]) >= 1:
            return
        time.sleep(0.1)
    raise AssertionError("no pooled sandbox")


def test_what_one_takes_is_left_for_its_siblings(stoker: RunningStoker) -> None:
    wait_for_pooled(stoker)
    taken: dict[str, Any] = stoker.invoke("sibling0", {"most": 200_000})
    if not taken["zygote"]:
        pytest.skip("needs zygotes: the host's control groups do not allow them")
    # Ends for the greedy, with as much left for each of its siblings.
    assert 2 <= taken["watches"] <= max(2, host_watches() // LEFT_FOR_ALL)
    assert taken["signals"] == 1024
    for number in range(1, SIBLINGS):
        wait_for_pooled(stoker)
        answer = stoker.invoke(f"sibling{number}", {"most": 1})
        assert answer == {"zygote": True, "watches": 1, "timers": 1, "signals": 1}


def host_watches() -> int:
    with open("/proc/sys/user/max_inotify_instances") as file:
        return int(file.read())
