"""Functions in micro-VMs under software emulation, through boto3: Python and Node from zips, one from an image.

A short part of what the container driver passes; STOKER_TEST_VMS=all adds what takes long.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.app.launch import service_identity
from stoker.core.configuration import Settings
from tests.conformance.test_images import CONFIG, created, take_in
from tests.conformance.test_invoke import PROBE, assert_fresh, failure
from tests.guests import guests_data, missing_for_vms
from tests.running import RunningStoker, node_runtime, zip_of

WHOLE = os.environ.get("STOKER_TEST_VMS") == "all"
NODE = """
exports.handler = async (event) => ({ node: process.version, event, uid: process.getuid() });
"""


@pytest.fixture(scope="module")
def vms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStoker]:
    if missing_for_vms():
        pytest.skip(missing_for_vms())
    running = RunningStoker(isolation="qemu", egress=False)
    os.chown(running.data, *service_identity(Settings()))
    (running.data / "guests").symlink_to(guests_data() / "guests")
    try:
        running.start()
        take_in(running, tmp_path_factory.mktemp("images") / "one", "app:1", {**CONFIG, "User": "1000:1000"})
        running.create_python("probe", PROBE, MemorySize=192, Timeout=20)
        yield running
    finally:
        running.remove()


def test_python_from_a_zip(vms: RunningStoker) -> None:
    assert vms.invoke("probe")["count"] == 1
    assert vms.invoke("probe")["count"] == 2
    context = vms.invoke("probe", {"do": "context"})
    assert context["memory_limit_in_mb"] == "192"
    answer = vms.client("lambda").invoke(
        FunctionName="probe", LogType="Tail", Payload=json.dumps({"do": "print", "text": "from inside"})
    )
    log = base64.b64decode(answer["LogResult"]).decode()
    assert "from inside\n" in log
    assert "Max Memory Used: 0 MB" not in log
    assert "REPORT RequestId" in log


def test_an_error_a_death_and_a_fresh_sandbox(vms: RunningStoker) -> None:
    assert failure(vms, "probe", {"do": "raise", "message": "no"})["errorType"] == "ValueError"
    assert failure(vms, "probe", {"do": "exit", "status": 3})["errorType"] == "Runtime.ExitError"
    assert_fresh(vms, "probe")


def test_node_from_a_zip(vms: RunningStoker) -> None:
    runtime = node_runtime()
    if runtime is None:
        pytest.skip("Node.js (apt install nodejs)")
    vms.create(
        "node",
        zip_of({"index.js": NODE}),
        Runtime=runtime,
        Handler="index.handler",
        MemorySize=256,
        Timeout=30,
    )
    answer = vms.invoke("node", {"a": 1})
    assert answer["event"] == {"a": 1}
    assert answer["uid"] == 993


def test_an_image(vms: RunningStoker) -> None:
    created(vms, "image")
    answer = vms.invoke("image", {"a": 1})
    assert answer


def layers_of(stoker: RunningStoker, name: str) -> dict[str, str]:
    command = [sys.executable, "-m", "stoker.cli.main", "ps", "--layers", "--json"]
    done = subprocess.run(
        [*command, "--data", str(stoker.data)], capture_output=True, text=True, check=True, timeout=60
    )
    boxes = json.loads(done.stdout)
    return next(box["layers"] for box in boxes if box["function_arn"].endswith(f":{name}"))


def test_the_layers_of_a_worker(vms: RunningStoker) -> None:
    vms.invoke("probe")
    layers = layers_of(vms, "probe")
    assert "-cloud-amd64" in layers["kernel"]
    assert "seccomp filter" in layers["seccomp"]
    program = Path(f"/proc/{layers['vmm_pid']}/comm").read_text()
    assert program.startswith("qemu-system")


@pytest.mark.skipif(not WHOLE, reason="STOKER_TEST_VMS=all, since it takes a minute")
def test_running_out_of_memory_and_time(vms: RunningStoker) -> None:
    assert failure(vms, "probe", {"do": "eat"})["errorMessage"].endswith("signal: killed")
    vms.create_python("slow", PROBE, MemorySize=128, Timeout=3)
    assert (
        "timed out after 3.00 seconds" in failure(vms, "slow", {"do": "sleep", "seconds": 30})["errorMessage"]
    )


@pytest.mark.skipif(not WHOLE, reason="STOKER_TEST_VMS=all, since it takes a minute")
def test_killed_in_the_middle_nothing_is_left(vms: RunningStoker) -> None:
    vms.invoke("probe")
    vmm = Path("/proc") / layers_of(vms, "probe")["vmm_pid"]
    assert vmm.exists()
    vms.kill()
    vms.start()  # a frozen VM ends here at the latest, as every frozen sandbox
    assert not vmm.exists()
    assert list((vms.data / "vms" / "running").iterdir()) == []
    assert_fresh(vms, "probe")
