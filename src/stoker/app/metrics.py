"""/metrics: the rooms' statistics in Prometheus' text format. Totals only: nothing names a function."""

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from stoker.app.collecting import CollectingStatistics
from stoker.app.frontends import FrontEndsStatistics
from stoker.aws.kms import KmsStatistics
from stoker.events.deliveries import DeliveryStatistics
from stoker.events.mapping_runner import MappingStatistics
from stoker.events.poller import EventStatistics
from stoker.events.stream_parts import StreamCounts
from stoker.frontend.invoke import FrontendStatistics
from stoker.manager.pool import PoolStatistics
from stoker.packaging.chunks.reading import Alarms
from stoker.packaging.held import CacheStatistics
from stoker.packaging.quiet_jobs import JobStatistics
from stoker.packaging.volumes.cached_chunks import SourceStatistics
from stoker.packaging.volumes.records import VolumeStatistics
from stoker.sandbox.firecracker.metrics import VmmStatistics
from stoker.store.rotation import RotationStatistics
from stoker.worker.statistics import Histogram, WorkerStatistics


class Sources(msgspec.Struct, frozen=True):
    """Where the numbers come from; each is read when somebody asks."""

    worker: Callable[[], WorkerStatistics]
    pool: Callable[[], PoolStatistics]
    frontend: Callable[[], FrontendStatistics]
    events: Callable[[], EventStatistics]
    deliveries: Callable[[], DeliveryStatistics]
    mappings: Callable[[], MappingStatistics]
    streams: Callable[[], StreamCounts]
    logs: Callable[[], Mapping[str, int]]
    keys: Callable[[], RotationStatistics]
    collecting: Callable[[], CollectingStatistics]
    image_alarms: Callable[[], Alarms]
    kms: Callable[[], KmsStatistics]
    code_cache: Callable[[], CacheStatistics]
    code_jobs: Callable[[], JobStatistics]
    volumes: Callable[[], VolumeStatistics]
    volume_restarts: Callable[[], int]
    chunks: Callable[[], SourceStatistics]
    front_ends: Callable[[], FrontEndsStatistics | None]
    """None while this process accepts the connections itself."""
    vms: Callable[[], VmmStatistics | None]
    """None where no sandbox is a VM of Firecracker."""


class Metrics:
    """Renders every source."""

    def __init__(self, sources: Sources) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Rooms(sources))

    def render(self) -> bytes:
        """The whole page."""
        return generate_latest(self._registry)


class _Rooms(Collector):
    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        yield from _flat("stoker_pool", "Sandboxes", self._sources.pool(), gauges=_POOL_GAUGES)
        frontend = self._sources.frontend()
        yield from _flat("stoker_frontend", "Invocations", frontend, gauges=frozenset({"abandoned"}))
        yield from _flat("stoker_admission", "Admission", frontend.admission, gauges=frozenset({"in_flight"}))
        yield from _flat("stoker_events", "Events", self._sources.events(), gauges=frozenset({"in_flight"}))
        deliveries = self._sources.deliveries()
        yield from _flat(
            "stoker_deliveries", "Records to destinations", deliveries, gauges=frozenset({"in_flight"})
        )
        mappings = self._sources.mappings()
        yield from _flat("stoker_mappings", "Event source mappings", mappings, gauges=_MAPPING_GAUGES)
        yield from _flat("stoker_streams", "Streams", self._sources.streams(), gauges=frozenset())
        yield from _flat(
            "stoker_keys", "Rotation of the master key", self._sources.keys(), gauges=_KEY_GAUGES
        )
        yield from _flat(
            "stoker_collector", "Garbage of images", self._sources.collecting(), gauges=_COLLECTOR_GAUGES
        )
        alarms = self._sources.image_alarms()
        yield from _flat("stoker_image_alarms", "What must never happen", alarms, gauges=frozenset())
        yield from _flat("stoker_kms", "Calls to KMS", self._sources.kms(), gauges=frozenset({"kept"}))
        cache = self._sources.code_cache()
        yield from _flat(
            "stoker_code_cache", "Code that is mountable", cache, gauges=frozenset({"size_bytes", "entries"})
        )
        jobs = self._sources.code_jobs()
        yield from _flat("stoker_code_jobs", "Code compiled ahead", jobs, gauges=frozenset({"waiting"}))
        yield from _flat("stoker_volumes", "Images", self._sources.volumes(), gauges=_VOLUME_GAUGES)
        yield CounterMetricFamily(
            "stoker_volumes_restarts",
            "Volume processes that died",
            value=float(self._sources.volume_restarts()),
        )
        yield from _flat("stoker_chunks", "Chunks", self._sources.chunks(), gauges=frozenset({"disk_bytes"}))
        front_ends = self._sources.front_ends()
        if front_ends is not None:
            yield from _flat("stoker_front_ends", "Front-end processes", front_ends, gauges=_PROCESS_GAUGES)
        vms = self._sources.vms()
        if vms is not None:
            yield from _flat("stoker_vms", "Micro-VMs", vms, gauges=frozenset({"running"}))
        yield from _worker(self._sources.worker())
        for name, value in self._sources.logs().items():
            yield CounterMetricFamily(f"stoker_logs_{name}", f"Function logs: {name}", value=float(value))


_MAPPING_GAUGES = frozenset({"pollers", "in_flight"})
_KEY_GAUGES = frozenset({"master_keys", "waiting"})
_VOLUME_GAUGES = frozenset({"volumes", "cache_bytes"})
_COLLECTOR_GAUGES = frozenset({"images_stuck", "alarmed_roots"})
_PROCESS_GAUGES = frozenset({"processes", "in_flight"})
_WORKER_GAUGES = frozenset({"pool_size", "pool_memory_mb", "zygotes"})
_POOL_GAUGES = frozenset({"idle", "busy", "draining", "placing", "functions", "deployments"})


def _flat(prefix: str, what: str, record: msgspec.Struct, *, gauges: frozenset[str]) -> Iterable[Metric]:
    for name, value in msgspec.structs.asdict(record).items():
        if isinstance(value, dict):
            family = CounterMetricFamily(f"{prefix}_{name}", f"{what}: {name}", labels=["reason"])
            for reason, count in cast(Mapping[str, int], value).items():
                family.add_metric([reason], float(count))
            yield family
        elif isinstance(value, int | float):
            kind = GaugeMetricFamily if name in gauges else CounterMetricFamily
            yield kind(f"{prefix}_{name}", f"{what}: {name}", value=float(value))


def _worker(statistics: WorkerStatistics) -> Iterable[Metric]:
    for name in statistics.__slots__:
        value: object = getattr(statistics, name)
        if isinstance(value, Histogram):
            yield _histogram(f"stoker_worker_{name.removesuffix('_ms')}_seconds", name, value)
        elif isinstance(value, int):
            kind = GaugeMetricFamily if name in _WORKER_GAUGES else CounterMetricFamily
            yield kind(f"stoker_worker_{name}", f"Worker: {name}", value=float(value))


def _histogram(name: str, what: str, histogram: Histogram) -> HistogramMetricFamily:
    buckets: list[tuple[str, float]] = []
    total = 0
    bounds = [*(str(bound / 1000) for bound in histogram.bounds_ms), "+Inf"]
    for bound, count in zip(bounds, histogram.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return HistogramMetricFamily(name, f"Worker: {what}", buckets=buckets, sum_value=histogram.sum_ms / 1000)
