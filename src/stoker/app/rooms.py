"""The rooms of an embedded Stoker, wired: worker, manager, front end, poller, control plane."""

import os
import uuid
from pathlib import Path
from random import Random, SystemRandom

import msgspec

from stoker.app.cellar import Cellar
from stoker.app.host_memory import memory_available_mb, memory_budget_mb, memory_reserve_mb
from stoker.app.runtimes import CatalogSupport
from stoker.aws.clients import AwsClients
from stoker.aws.dynamodb_source import DynamoDbSource
from stoker.aws.kinesis_source import KinesisSource
from stoker.aws.queue_source import AwsQueueSource
from stoker.aws.sender import AwsSender
from stoker.aws.stream_calls import DYNAMODB_STREAMS, KINESIS, StreamCalls
from stoker.control.iam.plane import IdentityPlane, IdentityPorts
from stoker.control.plane import ControlPlane
from stoker.control.ports import Ports
from stoker.core.clock import Clock
from stoker.core.configuration import Settings
from stoker.events.deliveries import DeliveryPoller
from stoker.events.endings import StoredEndings
from stoker.events.mapping_runner import MappingRunner, MappingSources
from stoker.events.policies import StoredEventConfigs
from stoker.events.poller import EventPoller
from stoker.events.retries import RetryPolicy
from stoker.events.versions import QualifiedVersions
from stoker.frontend.admission import Admission
from stoker.frontend.invoke import InvokeFrontend
from stoker.frontend.urls import FunctionUrlFrontend, UrlDirectory
from stoker.manager.manager import LocalWorkerManager
from stoker.manager.pool import PoolLimits
from stoker.placement.policy import DensePacking
from stoker.runtimes.catalog import RuntimeCatalog
from stoker.sandbox.driver import SandboxDriver
from stoker.services.credentials import Credential
from stoker.services.functions import FunctionVersion
from stoker.services.logs import LogStore
from stoker.services.manager import Provisioner
from stoker.store.objects import S3ObjectSource, S3Settings
from stoker.worker.agent import WorkerAgent
from stoker.worker.environment import ServeServiceApi
from stoker.worker.parts import WorkerSettings

WORKER_ID = "local"
EVENTS_IN_FLIGHT_MAX = 50
"""Asynchronous invocations at one time; never more than half of the account's concurrency."""


class Rooms(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that has a life of its own, in the order in which it is closed."""

    poller: EventPoller
    deliveries: DeliveryPoller
    mappings: MappingRunner
    frontend: InvokeFrontend
    urls: FunctionUrlFrontend
    manager: LocalWorkerManager
    worker: WorkerAgent
    control: ControlPlane
    identity: IdentityPlane
    objects: S3ObjectSource
    runtimes: RuntimeCatalog


def wire_rooms(
    settings: Settings,
    cellar: Cellar,
    clock: Clock,
    driver: SandboxDriver,
    logs: LogStore,
    serve_service_api: ServeServiceApi,
    *,
    zygotes: bool,
) -> Rooms:
    """Make every room; nothing is started yet. ``zygotes``: whether there are to be any."""
    data = Path(settings.data)
    runtimes = cellar.runtimes
    worker = _worker(settings, cellar, clock, driver, logs, runtimes, serve_service_api, zygotes)
    cellar.images.on_mount_lost.append(worker.mount_lost)
    workers = {worker.worker_id: worker}
    identity = IdentityPlane(_identity_ports(settings, cellar, clock))
    limits = PoolLimits(idle_timeout_s=float(settings.idle_timeout_s))
    manager = LocalWorkerManager(
        workers, DensePacking(), clock, limits=limits, proactive=settings.proactive_inits
    )
    frontend = InvokeFrontend(
        metadata=cellar.metadata,
        records=cellar.records,
        invalidation=cellar.invalidation,
        manager=manager,
        workers=workers,
        events=cellar.queue,
        authoriser=identity.authoriser,
        clock=clock,
        random=Random(SystemRandom().getrandbits(128)),
        admission=Admission(settings.account_concurrency),
    )
    clients = cellar.clients
    poller, deliveries = _event_pollers(settings, cellar, clock, frontend, clients)
    mappings = _mapping_runner(cellar, clock, frontend, clients, deliveries)
    objects = S3ObjectSource(data / "downloads", S3Settings(os.environ, settings.region))
    control = ControlPlane(
        _control_ports(settings, cellar, clock, objects, runtimes, identity, manager, mappings)
    )
    return Rooms(
        poller=poller,
        deliveries=deliveries,
        mappings=mappings,
        frontend=frontend,
        urls=FunctionUrlFrontend(
            UrlDirectory(cellar.records, cellar.invalidation), identity.authoriser, frontend
        ),
        manager=manager,
        worker=worker,
        control=control,
        identity=identity,
        objects=objects,
        runtimes=runtimes,
    )


def _event_pollers(
    settings: Settings, cellar: Cellar, clock: Clock, frontend: InvokeFrontend, clients: AwsClients
) -> tuple[EventPoller, DeliveryPoller]:
    deliveries = DeliveryPoller(
        cellar.queue.deliveries,
        cellar.queue,
        AwsSender(clients),
        clock,
        Random(SystemRandom().getrandbits(128)),
    )
    configs = StoredEventConfigs(cellar.records, cellar.invalidation)
    poller = EventPoller(
        cellar.queue,
        frontend,
        clock,
        Random(SystemRandom().getrandbits(128)),
        policy=RetryPolicy(scale=settings.retry_scale),
        configs=configs,
        endings=StoredEndings(configs, QualifiedVersions(cellar.metadata, cellar.records)),
        delivery_added=deliveries.wake,
        concurrency_max=min(EVENTS_IN_FLIGHT_MAX, max(1, settings.account_concurrency // 2)),
    )
    frontend.put_events_on(poller)
    deliveries.put_events_on(poller)
    return poller, deliveries


def _mapping_runner(
    cellar: Cellar, clock: Clock, frontend: InvokeFrontend, clients: AwsClients, deliveries: DeliveryPoller
) -> MappingRunner:
    sources = MappingSources(
        queues=AwsQueueSource(clients),
        streams={
            "kinesis": KinesisSource(StreamCalls(clients, KINESIS, clock)),
            "dynamodb": DynamoDbSource(StreamCalls(clients, DYNAMODB_STREAMS, clock)),
        },
        checkpoints=cellar.queue.streams,
    )
    versions = QualifiedVersions(cellar.metadata, cellar.records)
    random = Random(SystemRandom().getrandbits(128))
    mappings = MappingRunner(cellar.records, sources, frontend, versions, clock, random)
    mappings.on_delivery_added(deliveries.wake)
    return mappings


def _worker(
    settings: Settings,
    cellar: Cellar,
    clock: Clock,
    driver: SandboxDriver,
    logs: LogStore,
    runtimes: RuntimeCatalog,
    serve_service_api: ServeServiceApi,
    zygotes: bool,
) -> WorkerAgent:
    def session_credentials(function: FunctionVersion) -> Credential:
        return cellar.credentials.issue_session(
            account=function.key.account, role_arn=function.role, session_name=function.key.name
        )

    return WorkerAgent(
        WorkerSettings(
            worker_id=WORKER_ID,
            memory_total_mb=int(memory_budget_mb(settings.memory_budget_mb) * settings.memory_overcommit),
            memory_reserve_mb=memory_reserve_mb(settings.memory_reserve_mb),
            sandboxes_max=settings.sandboxes_max,
            cpu_policy=settings.cpu_policy,
            egress=settings.egress,
            pool_memory_mb=settings.pool_memory_mb,
            pool_runtimes=tuple(settings.pool_runtimes.replace(",", " ").split()),
            zygotes=zygotes,
            pool_makers=max(1, (os.cpu_count() or 1) // 2),
        ),
        driver=driver,
        code=cellar.code,
        images=cellar.images.store,
        logs=logs,
        runtimes=runtimes,
        clock=clock,
        session_credentials=session_credentials,
        environments=cellar.environments,
        serve_service_api=serve_service_api,
        read_available_mb=memory_available_mb,
    )


def _identity_ports(settings: Settings, cellar: Cellar, clock: Clock) -> IdentityPorts:
    return IdentityPorts(
        records=cellar.records,
        metadata=cellar.metadata,
        invalidation=cellar.invalidation,
        keys=cellar.user_keys,
        issuer=cellar.credentials,
        clock=clock,
        new_id=lambda: str(uuid.uuid4()),
        roles=settings.roles,
    )


def _control_ports(
    settings: Settings,
    cellar: Cellar,
    clock: Clock,
    objects: S3ObjectSource,
    runtimes: RuntimeCatalog,
    identity: IdentityPlane,
    provisioner: Provisioner,
    mappings: MappingRunner,
) -> Ports:
    return Ports(
        metadata=cellar.metadata,
        records=cellar.records,
        provisioner=provisioner,
        code=cellar.code,
        images=cellar.images.store,
        images_unavailable=cellar.images.unavailable,
        objects=objects,
        invalidation=cellar.invalidation,
        runtimes=CatalogSupport(runtimes),
        clock=clock,
        new_id=lambda: str(uuid.uuid4()),
        environments=cellar.environments,
        location_keys=cellar.location_keys,
        check_role=identity.check_role,
        url_domain=settings.url_domain,
        account_concurrency=settings.account_concurrency,
        mapping_changed=mappings.mapping_changed,
    )
