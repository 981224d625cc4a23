"""The worker of one host: capacity, and the sandboxes by id. What happens in one is its ``Life``'s business.

It never knows why a sandbox is wanted or when one should go: the worker manager decides that.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from functools import partial

from stoker.core.clock import Clock
from stoker.core.errors import SandboxError
from stoker.core.promise import Promise
from stoker.runtimes.catalog import InvalidEntrypoint, RuntimeCatalog, RuntimePlan
from stoker.sandbox.driver import SandboxDriver
from stoker.services.code import CodeMissing, CodeStore, CodeUnavailable
from stoker.services.environments import EnvironmentKeeper, opened, unreadable
from stoker.services.functions import FunctionVersion
from stoker.services.images import ImageMissing, ImageStore
from stoker.services.invocation import Invocation, InvocationResult
from stoker.services.keys import KeyRefused, KeyUnavailable
from stoker.services.logs import LogStore
from stoker.services.outages import outage
from stoker.services.placement import WorkerSnapshot
from stoker.services.volumes import MountedTree, MountRefused
from stoker.services.worker import (
    CodeNotHere,
    InitFailed,
    SandboxReference,
    SandboxStatus,
    StaleReference,
    WorkerUnavailable,
)
from stoker.worker.environment import ServeServiceApi
from stoker.worker.freezer import Freezer
from stoker.worker.headroom import Headroom
from stoker.worker.images import MOUNT_LOST, mounted_image
from stoker.worker.launching import CodeFolders, extensions_in
from stoker.worker.life import Life
from stoker.worker.parts import Parts, SessionCredentials, WorkerSettings
from stoker.worker.pool import Pool, PoolSettings
from stoker.worker.pooling import PoolLimits, PoolPlan
from stoker.worker.statistics import WorkerStatistics
from stoker.worker.tasks import Background
from stoker.worker.zygotes import Zygotes


class WorkerAgent:
    """Implements ``services.worker.Worker``. Belongs to the event loop it was made on."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        driver: SandboxDriver,
        code: CodeStore,
        images: ImageStore,
        logs: LogStore,
        runtimes: RuntimeCatalog,
        clock: Clock,
        session_credentials: SessionCredentials,
        environments: EnvironmentKeeper,
        serve_service_api: ServeServiceApi | None = None,
        read_available_mb: Callable[[], int] | None = None,
    ) -> None:
        self.statistics = WorkerStatistics()
        self._settings = settings
        self._headroom = (
            Headroom(clock, settings.memory_reserve_mb, read_available_mb) if read_available_mb else None
        )
        self._code = code
        self._environments = environments
        self._runtimes = runtimes
        self._lives: dict[str, Life] = {}
        background = Background()
        self._pool = self._make_pool(driver, clock, background, serve_service_api)
        self._parts = Parts(
            settings=settings,
            driver=driver,
            clock=clock,
            logs=logs,
            images=images,
            session_credentials=session_credentials,
            serve_service_api=serve_service_api,
            freezer=Freezer(),
            statistics=self.statistics,
            background=background,
            pool=self._pool,
        )
        self._incarnation = secrets.token_hex(8)
        self._reserved_mb = 0
        self._arriving = 0
        """Sandboxes that have their room and are not among the lives yet."""
        self._planned: set[str] = set()
        self._draining = False
        self._lost_callbacks: list[Callable[[SandboxReference], None]] = []

    def _make_pool(
        self,
        driver: SandboxDriver,
        clock: Clock,
        background: Background,
        serve_service_api: ServeServiceApi | None,
    ) -> Pool | None:
        settings = self._settings
        if settings.pool_memory_mb <= 0:
            return None
        return Pool(
            PoolSettings(
                worker_id=settings.worker_id,
                cpu_policy=settings.cpu_policy,
                egress=settings.egress,
                makers=settings.pool_makers,
            ),
            PoolPlan(PoolLimits(memory_mb=settings.pool_memory_mb)),
            driver=driver,
            clock=clock,
            statistics=self.statistics,
            background=background,
            serve_service_api=serve_service_api,
            room=self._pool_room,
            busy=lambda: any(life.is_initialising for life in self._lives.values()),
            zygotes=self._make_zygotes(driver, clock, background),
        )

    def _make_zygotes(self, driver: SandboxDriver, clock: Clock, background: Background) -> Zygotes | None:
        if not self._settings.zygotes:
            return None
        return Zygotes(
            cpu_policy=self._settings.cpu_policy,
            driver=driver,
            clock=clock,
            statistics=self.statistics,
            background=background,
        )

    def _pool_room(self) -> int:
        """Sandboxes that a pool may have; on a host that runs short the pools are the first to go."""
        return 0 if self._missing_mb() else self._settings.sandboxes_max - len(self._lives)

    def _missing_mb(self) -> int:
        return self._headroom.missing_mb() if self._headroom is not None else 0

    @property
    def worker_id(self) -> str:
        return self._settings.worker_id

    def snapshot(self) -> WorkerSnapshot:
        return WorkerSnapshot(
            worker_id=self._settings.worker_id,
            memory_total_mb=self._settings.memory_total_mb,
            memory_reserved_mb=self._reserved_mb,
            sandboxes=len(self._lives) + self._arriving,
            sandboxes_max=self._settings.sandboxes_max,
            draining=self._draining,
        )

    # --- making

    async def warm(self) -> None:
        """Have the pools that the settings name filled, behind.

        Raises:
            RuntimeUnavailable: this host cannot run one of them; the message says what to install.
        """
        if self._pool is None:
            return
        for runtime in self._settings.pool_runtimes:
            plan = None
            if not runtime.startswith("provided"):
                plan = await asyncio.to_thread(self._runtimes.plan, runtime)
            self._pool.expect(plan)

    async def create(self, function: FunctionVersion, *, provisioned: bool = False) -> SandboxReference:
        started_s = self._parts.clock.monotonic_s()
        self._admit(function)
        # Room is taken before anything is awaited, so that two creations never share the last of it.
        self._reserved_mb += function.memory_mb
        self._arriving += 1
        sandbox_id = secrets.token_hex(8)
        reference = SandboxReference(self._settings.worker_id, self._incarnation, sandbox_id, 0)
        try:
            function = await opened(self._environments, function)
            life = await self._life(reference, function, provisioned=provisioned)
        except (CodeMissing, CodeUnavailable, ImageMissing) as error:
            self._reserved_mb -= function.memory_mb
            raise CodeNotHere(f"the code of {function.arn} is not here: {error}", outage(error)) from error
        except (KeyRefused, KeyUnavailable) as error:
            self._reserved_mb -= function.memory_mb
            raise unreadable(error, "the code") from error
        except MountRefused as error:
            self._reserved_mb -= function.memory_mb
            raise WorkerUnavailable(f"the image of {function.arn} cannot be mounted: {error}") from error
        except BaseException:
            self._reserved_mb -= function.memory_mb
            raise
        finally:
            self._arriving -= 1
        self._lives[sandbox_id] = life
        self.statistics.reserve_ms.add((self._parts.clock.monotonic_s() - started_s) * 1000.0)
        await self._begin(life)
        if provisioned and not await life.initialised:
            life.retire()
            raise InitFailed(f"the Init of {function.arn} failed; its log says why")
        self.statistics.sandboxes_created += 1
        self.statistics.create_ms.add((self._parts.clock.monotonic_s() - started_s) * 1000.0)
        return reference

    async def _life(
        self, reference: SandboxReference, function: FunctionVersion, *, provisioned: bool
    ) -> Life:
        """A life with its code at hand; once it has ended, the code is left."""
        if function.image is not None:
            image = await mounted_image(self._parts.images, function, function.image)
            return self._made_life(reference, function, image.plan, image.folders, image.leave, provisioned)
        code = await self._code.use(
            function.code_name, function.layer_codes, function.runtime, function.key.account
        )
        try:
            extensions = extensions_in(code.opt) if code.opt is not None else ()
            folders = CodeFolders(code.task, code.cache, code.opt, extensions)
            plan = await self._plan(function, folders)
        except BaseException:
            code.leave()
            raise
        return self._made_life(reference, function, plan, folders, code.leave, provisioned)

    def _made_life(
        self,
        reference: SandboxReference,
        function: FunctionVersion,
        plan: RuntimePlan | InvalidEntrypoint,
        folders: CodeFolders,
        leave: Callable[[], None],
        provisioned: bool,
    ) -> Life:
        return Life(
            reference,
            function,
            plan,
            folders,
            self._parts,
            lost=self._life_lost,
            ended=partial(self._life_ended, leave),
            provisioned=provisioned,
        )

    def _admit(self, function: FunctionVersion) -> None:
        settings = self._settings
        if self._draining:
            raise WorkerUnavailable(f"worker {settings.worker_id} is closing")
        if len(self._lives) + self._arriving >= settings.sandboxes_max:
            raise WorkerUnavailable(
                f"worker {settings.worker_id} has all its {settings.sandboxes_max} sandboxes"
            )
        if self._reserved_mb + function.memory_mb > settings.memory_total_mb:
            raise WorkerUnavailable(
                f"worker {settings.worker_id} has no {function.memory_mb} MB left "
                f"({self._reserved_mb} of {settings.memory_total_mb} MB are reserved)"
            )
        if missing_mb := self._missing_mb():
            self.statistics.memory_refusals += 1
            raise WorkerUnavailable(
                f"the host of worker {settings.worker_id} is {missing_mb} MB short of the "
                f"{settings.memory_reserve_mb} MB that it keeps available"
            )

    async def _plan(self, function: FunctionVersion, folders: CodeFolders) -> RuntimePlan | InvalidEntrypoint:
        runtime = function.runtime or "provided"
        wrapper = (function.environment or {}).get("AWS_LAMBDA_EXEC_WRAPPER")

        def plan() -> RuntimePlan | InvalidEntrypoint:
            try:
                return self._runtimes.plan(runtime, exec_wrapper=wrapper, task=folders.task, opt=folders.opt)
            except InvalidEntrypoint as error:
                return error

        if runtime in self._planned:
            return plan()
        # The first time an interpreter is looked for and started, which takes its time.
        result = await asyncio.to_thread(plan)
        self._planned.add(runtime)
        return result

    async def _begin(self, life: Life) -> None:
        try:
            await life.begin()
        except SandboxError as error:
            life.retire()
            raise WorkerUnavailable(f"worker {self._settings.worker_id}: {error}") from error
        except BaseException:
            life.retire()
            raise

    # --- using

    def invoke(self, sandbox: SandboxReference, invocation: Invocation) -> Promise[InvocationResult]:
        life = self._current_life(sandbox)
        if life is None:
            stale = StaleReference(f"sandbox {sandbox.sandbox_id} of epoch {sandbox.epoch} is not here")
            answer: Promise[InvocationResult] = Promise()
            answer.fail(stale)
            return answer
        life.epoch = sandbox.epoch
        return life.invoke(invocation)

    def idle(self, sandbox: SandboxReference) -> None:
        """Nothing is left to do: a sandbox is frozen soon after its invocation anyway."""

    def retire(self, sandbox: SandboxReference) -> None:
        life = self._current_life(sandbox)
        if life is not None:
            life.retire()

    def _current_life(self, sandbox: SandboxReference) -> Life | None:
        life = self._lives.get(sandbox.sandbox_id)
        if life is None or sandbox.epoch < life.epoch or sandbox.incarnation != self._incarnation:
            return None
        return life

    def mount_lost(self, mount_id: int) -> None:
        """Nothing can be read of that mount any more: end what runs from it, and say so in its log."""
        for life in tuple(self._lives.values()):
            root = life.code.root
            if isinstance(root, MountedTree) and root.mount_id == mount_id:
                self.statistics.mounts_lost += 1
                life.end_now(MOUNT_LOST)

    # --- telling

    def on_sandbox_lost(self, callback: Callable[[SandboxReference], None]) -> None:
        self._lost_callbacks.append(callback)

    def _life_lost(self, life: Life) -> None:
        for callback in self._lost_callbacks:
            callback(life.reference)

    def _life_ended(self, leave_code: Callable[[], None], life: Life) -> None:
        del self._lives[life.reference.sandbox_id]
        self._reserved_mb -= life.function.memory_mb
        leave_code()
        self.statistics.sandboxes_destroyed += 1

    def sandboxes(self) -> list[SandboxStatus]:
        pooled = self._pool.statuses() if self._pool is not None else []
        return [*(life.status() for life in self._lives.values()), *pooled]

    def troubles(self) -> tuple[str, ...]:
        """What does not work as it should, in words."""
        return self._pool.troubles() if self._pool is not None else ()

    # --- ending

    async def close(self, grace_s: float) -> None:
        self._draining = True
        if self._pool is not None:
            self._pool.close()
        for life in tuple(self._lives.values()):
            life.retire()
        if grace_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_ended(), grace_s)
        for life in tuple(self._lives.values()):
            life.end_now()
        await self._parts.background.wait()
        self._parts.freezer.close()

    async def _all_ended(self) -> None:
        while self._lives:
            await self._parts.background.wait()
            # What is left is busy: its end spawns the removal that is waited for next.
            await asyncio.sleep(0.01)
