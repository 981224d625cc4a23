"""The worker over images: mounted roots in real sandboxes, with a program that speaks the Runtime API."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker.packaging.memory_images import MemoryImageStore
from stoker.sandbox.container import ContainerDriver
from stoker.services.functions import FunctionVersion, ImageOverrides, ImageUse
from stoker.services.images import ImageConfiguration, ImageUser
from stoker.services.invocation import InvocationResult
from stoker.services.volumes import MountRefused
from stoker.services.worker import WorkerUnavailable
from tests.images.programs import BOOTSTRAP
from tests.integration.sandbox.image_root import make_image_root
from tests.integration.worker.conftest import open_to_sandboxes
from tests.integration.worker.test_agent import ID, KEY, Bench

URI = "local/app:1"
RUN = ImageConfiguration(entry_point=("/bootstrap",), command=("app.handler",))


class ImageBench(Bench):
    """A bench whose functions are images of one root."""

    images: MemoryImageStore

    async def imaged(
        self, configuration: ImageConfiguration = RUN, overrides: ImageOverrides | None = None, **more: Any
    ) -> FunctionVersion:
        resolved = self.images.put(URI, configuration, self.root / "image")
        await self.images.admit(resolved, KEY.account)
        image = ImageUse(uri=URI, resolved_uri=resolved.resolved_uri, digest=resolved.digest)
        function = self.function("")
        return msgspec.structs.replace(
            function, runtime=None, handler=None, image=image, image_overrides=overrides, **more
        )

    async def ran(self, function: FunctionVersion, payload: object = None) -> Any:
        result = await self.invoke(await self.agent.create(function), payload)
        assert result.function_error is None, result.payload
        return json.loads(result.payload)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    open_to_sandboxes(folder)
    (folder / "image").mkdir()
    image = make_image_root(folder / "image")
    (image / "bootstrap").write_text(BOOTSTRAP)
    (image / "bootstrap").chmod(0o755)
    (image / "broken").write_text("not a program")
    (image / "broken").chmod(0o755)
    (image / "private").write_text("of 1000")
    (image / "private").chmod(0o600)
    os.chown(image / "private", 1000, 1000)
    return folder


@pytest.fixture
async def bench(jail_socket: Path, root: Path, tmp_path: Path) -> AsyncIterator[ImageBench]:
    driver = ContainerDriver(jail_socket)
    await driver.start()
    bench = ImageBench(tmp_path, driver=driver)
    bench.images = bench.agent._parts.images  # type: ignore[assignment]
    (tmp_path / "image").symlink_to(root / "image")
    yield bench
    await bench.agent.close(0)
    assert bench.agent.sandboxes() == []
    assert bench.images.in_use == 0
    await driver.close()


async def test_an_image_runs_with_its_own_root_and_lambdas_environment(bench: ImageBench) -> None:
    configuration = msgspec.structs.replace(
        RUN,
        environment={
            "PATH": "/usr/bin:/custom",
            "EXTRA": "from the image",
            "AWS_REGION": "elsewhere",
            "AWS_LAMBDA_RUNTIME_API": "elsewhere:1",
        },
        working_directory="/var/task",
    )
    found = await bench.ran(
        await bench.imaged(configuration, environment={"OWN": "1"}), {"read": "/etc/marker"}
    )
    assert found["argv"] == ["/bootstrap", "app.handler"]
    assert found["read"] == "only in the image\n"
    assert (found["cwd"], found["uid"], found["gid"]) == ("/var/task", 993, 990)
    assert found["tmp"] == 1
    environment = found["environment"]
    expected = {
        "PATH": "/usr/bin:/custom",
        "EXTRA": "from the image",
        "OWN": "1",
        "_HANDLER": "app.handler",
        "AWS_REGION": "us-east-1",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "LAMBDA_TASK_ROOT": "/var/task",
        "AWS_LAMBDA_FUNCTION_NAME": "echo",
    }
    assert {name: environment.get(name) for name in expected} == expected
    assert "AWS_EXECUTION_ENV" not in environment
    assert "LD_LIBRARY_PATH" not in environment


async def test_the_log_is_as_for_archives_without_a_runtime_version(bench: ImageBench) -> None:
    await bench.ran(await bench.imaged())
    text = bench.logs.text
    assert "INIT_START" not in text
    for line in ("starting", f"START RequestId: {ID} Version: $LATEST", "working", f"END RequestId: {ID}"):
        assert line in text
    assert re.search(r"REPORT RequestId: \S+\tDuration: .*\tInit Duration: ", text)


async def test_overrides_replace_member_by_member(bench: ImageBench) -> None:
    function = await bench.imaged(
        RUN, ImageOverrides(command=("other.handler", "2"), working_directory="/tmp")
    )
    found = await bench.ran(function)
    assert found["argv"] == ["/bootstrap", "other.handler", "2"]
    assert (found["cwd"], found["environment"]["_HANDLER"]) == ("/tmp", "2")
    function = await bench.imaged(RUN, ImageOverrides(entry_point=("/usr/bin/python3", "/bootstrap")))
    assert (await bench.ran(function))["argv"] == ["/bootstrap", "app.handler"]


async def test_the_images_user_is_the_processs(bench: ImageBench) -> None:
    configuration = msgspec.structs.replace(RUN, user=ImageUser(1000, 1000))
    found = await bench.ran(await bench.imaged(configuration), {"read": "/private"})
    assert (found["uid"], found["gid"], found["read"], found["tmp"]) == (1000, 1000, "of 1000", 1)
    usual = await bench.ran(
        await bench.imaged(msgspec.structs.replace(RUN, user=ImageUser(0, 0))), {"read": "/private"}
    )
    assert (usual["uid"], usual["read"]) == (993, "Permission denied")


async def test_nothing_of_the_image_is_writable(bench: ImageBench) -> None:
    for path in ("/etc/marker", "/new", "/var/task/x"):
        found = await bench.ran(await bench.imaged(), {"write": path})
        assert found["write"] in ("Read-only file system", "Permission denied")


LAUNCHES: dict[str, tuple[ImageConfiguration, str, str]] = {
    "missing": (
        ImageConfiguration(entry_point=("/nowhere",), command=("a", "b")),
        "Runtime.InvalidEntrypoint",
        "fork/exec /nowhere: no such file or directory",
    ),
    "not in the PATH": (
        ImageConfiguration(command=("nowhere",)),
        "Runtime.InvalidEntrypoint",
        'exec: "nowhere": executable file not found in $PATH',
    ),
    "no program": (
        ImageConfiguration(entry_point=("/broken",)),
        "Runtime.InvalidEntrypoint",
        "fork/exec /broken: exec format error",
    ),
    "not executable": (
        ImageConfiguration(entry_point=("/etc/marker",)),
        "Runtime.InvalidEntrypoint",
        "fork/exec /etc/marker: permission denied",
    ),
    "no such folder": (
        msgspec.structs.replace(RUN, working_directory="/nowhere"),
        "Runtime.InvalidWorkingDir",
        "chdir /nowhere: no such file or directory",
    ),
}


@pytest.mark.parametrize("case", LAUNCHES.values(), ids=LAUNCHES.keys())
async def test_what_cannot_be_started_is_told_as_aws_does(
    case: tuple[ImageConfiguration, str, str], bench: ImageBench
) -> None:
    configuration, error_type, text = case
    function = await bench.imaged(configuration)
    result: InvocationResult = await bench.invoke(await bench.agent.create(function))
    assert result.function_error == "Unhandled"
    assert json.loads(result.payload) == {
        "errorType": error_type,
        "errorMessage": f"RequestId: {ID} Error: {text}",
    }
    entry, command = " ".join(configuration.entry_point), " ".join(configuration.command)
    folder = configuration.working_directory or "/"
    line = f"IMAGE\tLaunch error: {text}\tEntrypoint: [{entry}]\tCmd: [{command}]\tWorkingDir: [{folder}]\n"
    assert bench.logs.text.count(line) == 2  # the second time for the invocation
    assert f"RequestId: {ID} Error: {text}\n{error_type}\n" in bench.logs.text


async def test_an_image_that_starts_nothing_is_an_invalid_entrypoint(bench: ImageBench) -> None:
    result = await bench.invoke(await bench.agent.create(await bench.imaged(ImageConfiguration())))
    assert json.loads(result.payload)["errorType"] == "Runtime.InvalidEntrypoint"


async def test_an_exit_is_told(bench: ImageBench) -> None:
    result = await bench.invoke(await bench.agent.create(await bench.imaged()), {"exit": 7})
    assert json.loads(result.payload)["errorMessage"].endswith("Runtime exited with error: exit status 7")


async def test_an_image_that_cannot_be_mounted_gives_its_room_back(bench: ImageBench) -> None:
    function = await bench.imaged()
    bench.images.fail_next(MountRefused("no /dev/fuse"))
    with pytest.raises(WorkerUnavailable, match="cannot be mounted: no /dev/fuse"):
        await bench.agent.create(function)
    await bench.images.forget(KEY.account, function.image.digest if function.image else "")
    with pytest.raises(WorkerUnavailable, match="is not here"):
        await bench.agent.create(function)
    assert bench.agent.snapshot().memory_reserved_mb == 0


async def test_a_lost_mount_ends_its_sandboxes_and_no_others(bench: ImageBench) -> None:
    idle = await bench.agent.create(await bench.imaged())
    await bench.invoke(idle)
    other = await bench.agent.create(await bench.imaged(msgspec.structs.replace(RUN, environment={"A": "1"})))
    await bench.invoke(other, number=2)
    life = bench.agent._lives[idle.sandbox_id]
    bench.agent.mount_lost(life.code.root.mount_id)  # type: ignore[union-attr]
    for _ in range(100):
        if len(bench.agent.sandboxes()) == 1:
            break
        await asyncio.sleep(0.02)
    assert [status.sandbox_id for status in bench.agent.sandboxes()] == [other.sandbox_id]
    assert [reference.sandbox_id for reference in bench.lost] == [idle.sandbox_id]
    assert "The image can no longer be read" in bench.logs.text
