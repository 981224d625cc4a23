"""Pre-warmed sandboxes over real jails: a function must not be able to tell that it was given one."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker.core.clock import SystemClock
from stoker.packaging.memory_images import MemoryImageStore
from stoker.runtimes.catalog import RuntimeCatalog
from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.guarded import GuardedDriver
from stoker.services.credentials import Credential
from stoker.services.functions import FunctionVersion
from stoker.services.invocation import Invocation
from stoker.store.environments import KeptEnvironments
from stoker.store.memory_keys import MemoryDataKeys
from stoker.worker.agent import WorkerAgent
from stoker.worker.parts import WorkerSettings
from tests.integration.sandbox.running_jail import RunningJail, missing
from tests.integration.worker.conftest import NATIVE, open_to_sandboxes
from tests.integration.worker.test_agent import ID, KEY, RUNTIME, Bench, Folders

CATALOG = RuntimeCatalog()
NODE = next((each.name for each in CATALOG.available() if each.name.startswith("nodejs")), None)
FILLED_WITHIN_S = 15.0
CREDENTIAL = Credential(
    access_key_id="ASIATEST",
    secret="secret",
    session_token="token",
    account=KEY.account,
    principal_arn="role",
)

needs_node = pytest.mark.skipif(NODE is None, reason="no Node.js 16 or later under /usr")
languages = pytest.mark.parametrize("runtime", [RUNTIME, pytest.param(NODE, marks=needs_node)])


class Pools(Bench):
    """An agent with pools, and a twin without them on the same jail."""

    def __init__(
        self, root: Path, driver: GuardedDriver, catalog: RuntimeCatalog = CATALOG, *, zygotes: bool = False
    ) -> None:
        super().__init__(root, driver=driver)
        self.catalog = catalog
        self.zygotes = zygotes
        self.plain = self.make_agent(0)
        self.agent = self.make_agent(64 if NODE is None else 160)

    def invocation(self, event: Any = None) -> Invocation:
        return Invocation(ID, json.dumps(event).encode(), KEY.arn, "Root=1-0-0")

    def make_agent(self, pool_memory_mb: int) -> WorkerAgent:
        return WorkerAgent(
            WorkerSettings(
                worker_id="w1",
                memory_total_mb=2048,
                sandboxes_max=40,
                pool_memory_mb=pool_memory_mb,
                zygotes=self.zygotes,
            ),
            driver=self.driver,
            code=Folders(self.root),
            images=MemoryImageStore(),
            logs=self.logs,
            runtimes=self.catalog,
            clock=SystemClock(),
            environments=KeptEnvironments(MemoryDataKeys()),
            session_credentials=lambda function: CREDENTIAL,
        )

    async def fill(self, runtime: str, at_least: int = 1) -> None:
        """Wait until this many of a runtime wait in their pool."""
        assert self.agent._pool is not None
        self.agent._pool.expect(None if runtime.startswith("provided") else self.catalog.plan(runtime))
        async with asyncio.timeout(FILLED_WITHIN_S):
            while len(self.pooled(runtime)) < at_least:
                await asyncio.sleep(0.01)

    def pooled(self, runtime: str) -> list[Any]:
        return [
            each for each in self.agent.sandboxes() if each.state == "pooled" and each.function_arn == runtime
        ]

    def source(
        self, runtime: str, text: str, files: dict[str, str] | None = None, **more: Any
    ) -> FunctionVersion:
        """A function of any runtime."""
        function = self.function("", **more)
        folder = self.root / function.code_sha256
        (folder / "index.py").unlink()
        name = (
            {"p": "index.py", "n": "index.js"}[runtime[0]]
            if not runtime.startswith("provided")
            else "bootstrap"
        )
        for path, content in {name: text, **(files or {})}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
            (folder / path).chmod(0o755)
        return msgspec.structs.replace(function, runtime=runtime)

    async def both(self, function: FunctionVersion, event: Any = None) -> tuple[Any, Any]:
        """What a function answers from a pool, and in a sandbox made for it."""
        await self.fill(function.runtime or "")
        hits = self.agent.statistics.pool_hits
        warm = await self.first(self.agent, function, event)
        assert self.agent.statistics.pool_hits == hits + 1
        return warm, await self.first(self.plain, function, event)

    async def first(self, agent: WorkerAgent, function: FunctionVersion, event: Any = None) -> Any:
        """The result and the log of a function's first invocation in a new sandbox."""
        self.logs.streams.clear()
        sandbox = await agent.create(function)
        result = await agent.invoke(sandbox, self.invocation(event))
        log = self.logs.text
        agent.retire(sandbox)
        return json.loads(result.payload), result.function_error, log


@pytest.fixture(params=[False, True], ids=["launched", "forked"])
async def pools(
    jail_socket: Path, tmp_path: Path, forking: RuntimeCatalog, request: pytest.FixtureRequest
) -> AsyncIterator[Pools]:
    open_to_sandboxes(tmp_path)
    driver = GuardedDriver(ContainerDriver(jail_socket))
    await driver.start()
    pools = Pools(tmp_path, driver, forking if request.param else CATALOG, zygotes=request.param)
    yield pools
    forks = pools.agent.statistics.zygote_forks
    await pools.agent.close(0)
    await pools.plain.close(0)
    await driver.close()
    assert pools.agent.sandboxes() == []
    assert pools.agent.statistics.zygote_failures == 0
    assert forks == 0 or request.param


PYTHON_LOOK = """
import gc, os, resource, sys, time
def look():
    tmp = os.statvfs("/tmp")
    return {
        "environ": [[k, v] for k, v in os.environ.items()],
        "path": sys.path, "argv": [sys.argv, sys.orig_argv], "cwd": os.getcwd(), "modules": sorted(sys.modules),
        "fds": sorted((int(fd), os.readlink(f"/proc/self/fd/{fd}").split(":")[0])
                      for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")),
        "limits": [resource.getrlimit(getattr(resource, n)) for n in sorted(dir(resource)) if n.startswith("RLIMIT_")],
        "tmp": [tmp.f_blocks * tmp.f_frsize // (1 << 20), os.listdir("/tmp")],
        "ids": [os.getuid(), os.getgid(), os.getgroups(), os.getpid(), os.getppid(), os.getsid(0), os.getpgid(0)],
        "meta": [repr(each) .split(" at ")[0] for each in sys.meta_path],
        "zone": [time.tzname, time.timezone, time.localtime(0)[:6]],
        "mounts": sorted(line.split()[4] + " " + line.split()[5] for line in open("/proc/self/mountinfo")),
        "status": [line for line in open("/proc/self/status") if line.startswith(("Sig", "Cap", "Sec", "NoNew", "Umask"))],
        "encodings": [sys.stdout.encoding, sys.getfilesystemencoding(), sys.stdout.errors, sys.flags.utf8_mode],
        "root": sorted(os.listdir("/")), "task": sorted(os.listdir("/var/task")), "nice": os.nice(0),
        "proc": [open(f"/proc/self/{name}").read() for name in ("cmdline", "comm", "oom_score_adj")],
        "own": [os.readlink("/proc/self/exe"), os.stat("/proc/self/mem").st_uid, os.getpriority(0, 0), os.umask(18)],
        "namespaces": len({os.readlink(f"/proc/self/ns/{name}") == os.readlink(f"/proc/1/ns/{name}")
                           for name in ("mnt", "net", "pid", "user", "ipc", "uts", "cgroup")}
                          if os.access("/proc/1/ns/mnt", os.R_OK) else ()),
        "collector": [gc.isenabled(), gc.get_threshold()],
        "frames": sys._getframe(1).f_back.f_code.co_name if sys._getframe(1).f_back else "",
    }
at_import = look()
def handler(event, context):
    print("a line")
    return [at_import, look(), context.log_stream_name != "", context.memory_limit_in_mb]
"""
NODE_LOOK = """
const fs = require('fs');
const v8 = require('v8');
function look() {
  const tmp = fs.statfsSync ? fs.statfsSync('/tmp') : { blocks: 0, bsize: 0 };
  return {
    environ: Object.entries(process.env), argv: [process.argv, process.execArgv], cwd: process.cwd(),
    paths: [module.paths, require.main && require.main.filename, require('module').globalPaths],
    fds: fs.readdirSync('/proc/self/fd').map(Number).filter((fd) => fs.existsSync('/proc/self/fd/' + fd))
      .map((fd) => [fd, fs.readlinkSync('/proc/self/fd/' + fd).split(':')[0]]),
    limits: fs.readFileSync('/proc/self/limits', 'utf8'), tmp: [tmp.blocks * tmp.bsize >> 20, fs.readdirSync('/tmp')],
    ids: [process.getuid(), process.getgid(), process.getgroups(), process.pid, process.ppid],
    zone: [new Date(0).toString(), Intl.DateTimeFormat().resolvedOptions().timeZone],
    heap: v8.getHeapStatistics().heap_size_limit, task: fs.readdirSync('/var/task'),
    globals: Object.getOwnPropertyNames(globalThis).sort(), listeners: process.eventNames().map(String),
    cache: Object.keys(require.cache),
  };
}
const atImport = look();
exports.handler = async (event, context) => {
  console.log('a line');
  return [atImport, look(), context.logStreamName !== '', context.memoryLimitInMB];
};
"""
SOURCES = {RUNTIME: PYTHON_LOOK, NODE: NODE_LOOK}


def without_names(found: Any) -> Any:
    """A log stream's name differs from one sandbox to the next; a forked process has its zygote's filter too."""
    for look in found[:2]:
        look["status"] = [line for line in look.get("status", []) if not line.startswith("Seccomp_filters")]
        for variable in look["environ"]:
            if variable[0] == "AWS_LAMBDA_LOG_STREAM_NAME":
                variable[1] = "stream"
    return found


def shape(log: str) -> list[str]:
    """A log without its times."""
    return [
        "".join("N" if c.isdigit() else c for c in line).replace("NN", "N")
        for line in log.splitlines()
        if "REPORT" not in line
    ]


@languages
async def test_a_function_cannot_tell(pools: Pools, runtime: str) -> None:
    function = pools.source(
        runtime,
        SOURCES[runtime],
        environment={"MINE": "1", "PATH": "/opt/bin:/usr/bin", "NODE_ENV": "production", "A": "ü"},
        tmp_mb=777,
        memory_mb=333,
    )
    (warm, _, warm_log), (fresh, _, fresh_log) = await pools.both(function)
    warm, fresh = without_names(warm), without_names(fresh)
    for name in fresh[0]:
        assert warm[0][name] == fresh[0][name], f"{name} at import"
        assert warm[1][name] == fresh[1][name], f"{name} in the handler"
    assert warm[2:] == fresh[2:] == [True, "333"]
    assert shape(warm_log) == shape(fresh_log)


PYTHON_FAILURES = {
    "raises": "raise ValueError('no')",
    "no module": "import nowhere_to_be_found",
    "syntax": "def broken(:",
    "no handler": "x = 1",
    "exits": "import sys; sys.exit(3)",
    "handler raises": "def handler(event, context):\n    {}['k']",
}
NODE_FAILURES = {
    "raises": "throw new TypeError('no');",
    "no module": "require('nowhere-to-be-found');",
    "syntax": "function (",
    "no handler": "exports.x = 1;",
    "exits": "process.exit(3);",
    "handler raises": "exports.handler = async () => { throw new RangeError('far'); };",
}
FAILURES = [
    *(pytest.param(RUNTIME, text, id=f"python {name}") for name, text in PYTHON_FAILURES.items()),
    *(pytest.param(NODE, text, id=f"node {name}", marks=needs_node) for name, text in NODE_FAILURES.items()),
]


@pytest.mark.parametrize(("runtime", "text"), FAILURES)
async def test_failures_are_the_same(pools: Pools, runtime: str, text: str) -> None:
    (warm, error, warm_log), fresh = await pools.both(pools.source(runtime, text))
    assert (warm, error) == fresh[:2]
    assert shape(warm_log) == shape(fresh[2])


@languages
async def test_a_module_of_the_function_is_found(pools: Pools, runtime: str) -> None:
    if runtime == RUNTIME:
        text = "from lib.deep import value\ndef handler(event, context): return value"
        files = {"lib/deep.py": "value = 'deep'"}
    else:
        text = "exports.handler = async () => require('deep');"
        files = {"node_modules/deep/index.js": "module.exports = 'deep';"}
    warm, fresh = await pools.both(pools.source(runtime, text, files))
    assert warm[0] == fresh[0] == "deep"


@needs_node
async def test_an_es_module(pools: Pools) -> None:
    function = pools.source(
        NODE or "",
        "",
        {
            "index.mjs": "import fs from 'fs'; export const handler = async () => [typeof fs.read, import.meta.url];"
        },
    )
    (pools.root / function.code_sha256 / "index.js").unlink()
    warm, fresh = await pools.both(function)
    assert warm[0] == fresh[0] == ["function", "file:///var/task/index.mjs"]


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("folder", ["lib", "."])
async def test_a_library_of_the_function_is_found(pools: Pools, folder: str) -> None:
    function = pools.source(
        RUNTIME, "import ctypes\ndef handler(event, context): return ctypes.CDLL('libanswer.so').answer()"
    )
    at = pools.root / function.code_sha256 / folder
    at.mkdir(exist_ok=True)
    source = "int answer(void) { return 42; }"
    command = ["cc", "-shared", "-fPIC", "-xc", "-", "-o", str(at / "libanswer.so")]
    subprocess.run(command, input=source.encode(), check=True)
    warm, fresh = await pools.both(function)
    assert warm[0] == fresh[0] == 42


@pytest.mark.parametrize(
    ("variables", "hit"),
    [({"TZ": "Asia/Tokyo"}, True), ({"LANG": "C"}, False), ({"PYTHONPATH": "/tmp"}, False)],
)
async def test_variables_that_act_at_the_start(pools: Pools, variables: dict[str, str], hit: bool) -> None:
    function = pools.source(RUNTIME, PYTHON_LOOK, environment=variables)
    await pools.fill(RUNTIME)
    await pools.fill("provided")
    before = len(pools.pooled(RUNTIME))
    warm = without_names((await pools.first(pools.agent, function))[0])
    assert (len(pools.pooled(RUNTIME)) < before) is hit
    fresh = without_names((await pools.first(pools.plain, function))[0])
    assert warm == fresh


async def test_a_provided_runtime_gets_a_bare_sandbox(pools: Pools) -> None:
    script = """#!/usr/bin/python3
import os, urllib.request
base = f"http://{os.environ['AWS_LAMBDA_RUNTIME_API']}/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(base + "next") as answer:
        name = answer.headers["Lambda-Runtime-Aws-Request-Id"]
        answer.read()
    body = repr(sorted(os.listdir("/proc/self/fd"))).replace("'", '"').encode()
    urllib.request.urlopen(urllib.request.Request(base + name + "/response", body)).read()
"""
    function = pools.source("provided.al2023", script)
    await pools.fill("provided")
    warm = await pools.first(pools.agent, function)
    assert pools.agent.statistics.pool_hits == 1
    assert warm[0] == (await pools.first(pools.plain, function))[0]


async def test_limits_are_the_functions(pools: Pools) -> None:
    eat = "def handler(event, context):\n    return len([bytearray(1 << 20) for _ in range(event)])"
    function = pools.source(RUNTIME, eat, memory_mb=512)
    await pools.fill(RUNTIME)
    assert (await pools.first(pools.agent, function, 400))[0] == 400
    await pools.fill(RUNTIME)
    died = await pools.first(pools.agent, msgspec.structs.replace(function, memory_mb=128), 400)
    assert died[0]["errorType"] == "Runtime.ExitError"


async def test_two_siblings_have_entropy_of_their_own(pools: Pools) -> None:
    text = "import random, uuid\ndef handler(event, context): return [random.random(), str(uuid.uuid4()), hash('a')]"
    function = pools.source(RUNTIME, text)
    await pools.fill(RUNTIME, 2)
    one, two = [(await pools.first(pools.agent, function))[0] for _ in range(2)]
    assert pools.agent.statistics.pool_hits == 2
    assert all(a != b for a, b in zip(one[:2], two[:2], strict=True))
    # What hash() is seeded with is drawn when an interpreter starts: docs/isolation.md says what that means.
    assert (one[2] == two[2]) is (pools.agent.statistics.zygote_forks > 0)


async def test_a_pooled_sandbox_sees_no_function(pools: Pools) -> None:
    """While one sandbox has a function's code, its pooled siblings have none, and no key."""
    await pools.fill(RUNTIME, 2)
    secret = {"MY_SECRET": "hush"}
    sandbox = await pools.agent.create(
        pools.source(RUNTIME, "def handler(event, context): return 1", environment=secret)
    )
    await pools.agent.invoke(sandbox, pools.invocation())
    await pools.fill(RUNTIME, 2)
    siblings = processes_in(pools)
    assert len(siblings) == 2
    for process in siblings:
        assert list((process / "root/var/task").iterdir()) == [process / "root/var/task/lib"]
        variables = (process / "environ").read_bytes()
        assert b"hush" not in variables
        assert b"AWS_SECRET" not in variables


def processes_in(pools: Pools) -> list[Path]:
    """The runtimes that wait in the pool of this runtime."""
    found = []
    for pooled in pools.agent._pool._ready[RUNTIME]:
        pidfd = pooled.environment.sandbox._inner._pidfd
        init = Path(f"/proc/self/fdinfo/{pidfd}").read_text().partition("Pid:\t")[2].split()[0]
        found += [
            Path("/proc", child) for child in Path(f"/proc/{init}/task/{init}/children").read_text().split()
        ]
    return found


async def test_a_crash_in_the_pool_is_noticed_and_made_good(pools: Pools) -> None:
    await pools.fill(RUNTIME, 2)
    victims = {each.sandbox_id for each in pools.pooled(RUNTIME)}
    for process in processes_in(pools):
        os.kill(int(process.name), 9)
    async with asyncio.timeout(5):
        while victims & {each.sandbox_id for each in pools.pooled(RUNTIME)}:
            await asyncio.sleep(0.01)
    assert pools.agent.statistics.pool_lost == 2
    await pools.fill(RUNTIME, 2)
    function = pools.source(RUNTIME, "def handler(event, context): return 7")
    assert (await pools.first(pools.agent, function))[0] == 7
    assert pools.agent.statistics.pool_hits == 1


async def test_an_empty_pool_costs_nothing_but_time(pools: Pools) -> None:
    function = pools.source(RUNTIME, "def handler(event, context): return 7")
    assert (await pools.first(pools.agent, function))[0] == 7
    assert (pools.agent.statistics.pool_hits, pools.agent.statistics.pool_misses) == (0, 1)
    await pools.fill(RUNTIME)


async def test_pooled_sandboxes_are_shown_and_count_for_nobody(pools: Pools) -> None:
    await pools.fill(RUNTIME, 2)
    snapshot = pools.agent.snapshot()
    assert (snapshot.sandboxes, snapshot.memory_reserved_mb) == (0, 0)
    shown = pools.pooled(RUNTIME)
    assert {each.state for each in shown} == {"pooled"}
    assert all(each.memory_used_bytes > 0 for each in shown)
    assert pools.agent.statistics.pool_size >= 2


async def test_pools_outlive_their_jail(tmp_path: Path) -> None:
    """What a dead jail made dies with it; the next one fills the pools again."""
    if missing():
        pytest.skip(missing())
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    jail = RunningJail("--no-egress", "--id-base", str(0x6E000000), program=NATIVE / "stoker-jail")
    jail.start()
    driver = GuardedDriver(await jail.driver())
    pools = Pools(tmp_path, driver)
    try:
        await pools.fill(RUNTIME, 2)
        old = {each.sandbox_id for each in pools.pooled(RUNTIME)}
        jail.kill()
        function = pools.source(RUNTIME, "def handler(event, context): return 7")
        creating = asyncio.create_task(pools.first(pools.agent, function))
        await asyncio.sleep(0.1)
        jail.start()
        assert (await creating)[0] == 7
        async with asyncio.timeout(FILLED_WITHIN_S):
            while len({each.sandbox_id for each in pools.pooled(RUNTIME)} - old) < 2:
                await asyncio.sleep(0.01)
        assert not old & {each.sandbox_id for each in pools.pooled(RUNTIME)}
        assert (await pools.first(pools.agent, function))[0] == 7
    finally:
        await pools.agent.close(0)
        await driver.close()
        jail.stop()
