"""Running workers for a command: one in this process, or several in processes of their own."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from urllib.parse import quote

from streampipe.brokers.port import Broker
from streampipe.cli.session import Session
from streampipe.cli.status import StatusLine
from streampipe.config import Settings, cautions
from streampipe.observe.health import Health
from streampipe.observe.lag_metrics import LagMonitor
from streampipe.observe.metrics import PrometheusObserver
from streampipe.observe.observers import Several
from streampipe.observe.server import serve
from streampipe.observe.summary import Snapshot, read_all
from streampipe.records import TopicPartition
from streampipe.runtime.plan import TaskBuilder
from streampipe.runtime.signals import run_until_signalled
from streampipe.runtime.slot import claimed_slot, machine
from streampipe.runtime.supervisor import run_workers
from streampipe.runtime.topics import external_inputs, prepare_topics
from streampipe.runtime.worker import Worker
from streampipe.state.memory import MemoryStores
from streampipe.state.port import Stores
from streampipe.state.rocksdb import RocksStores, check_installed
from streampipe.topology.nodes import Topology

REPORT_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be run. `until` are the offsets at which a replay ends."""

    session: Session
    settings: Settings
    topology: Topology
    until: Mapping[TopicPartition, int] = field(default_factory=dict)
    until_caught_up: bool = False
    close_windows: bool = False
    replay: bool = False

    @property
    def sources(self) -> list[str]:
        """The topics that the records to process come from."""
        return external_inputs(self.topology)


def prepare(work: Work, broker: Broker) -> None:
    """Check the processor against broker and registry, and make the topics that are missing."""
    session = work.session
    if work.settings.state == "rocksdb":
        check_installed()
    for caution in cautions(work.settings):
        session.out.warn(caution)
    with session.admin(broker) as admin, session.registry(work.settings) as registry:
        TaskBuilder(work.topology, registry, work.settings.schemas, sleep=time.sleep).build()
        for topic in prepare_topics(work.topology, admin, create=work.settings.create_topics):
            session.out.note(f"topic {topic} created")


def run_one(
    work: Work, broker: Broker, slot: int, report: Path | None, total: int | None = None
) -> tuple[int, Snapshot]:
    """Run one worker here until it ends or is told to; returns the exit code and what it did.

    With `report` its snapshots go into that folder, for the process that started it; else they are shown.
    """
    with ExitStack() as stack:
        registry = stack.enter_context(work.session.registry(work.settings))
        slot = stack.enter_context(claimed_slot(broker.name, work.topology.app_id, slot))
        stores = stack.enter_context(_stores(work, slot))
        builder = TaskBuilder(work.topology, registry, work.settings.schemas, sleep=time.sleep, stores=stores)
        told, look = _watched(work, broker, slot, stack)
        worker = Worker(
            builder.build, broker, work.settings, app_id=work.topology.app_id, slot=slot, instance=machine(),
            observer=told, until=work.until or None, until_caught_up=work.until_caught_up,
            close_windows=work.close_windows, replay=work.replay,
        )  # fmt: skip
        if report is not None:
            stack.enter_context(_reporting(report / f"{slot}-{os.getpid()}.json", look))
        else:
            stack.enter_context(StatusLine(work.session.out, look, work.sources, total))
        collect_seldom()
        return run_until_signalled(worker), look()


def collect_seldom() -> None:
    """Let Python's collector of cycles look at a worker's many objects less often; hardly any of them are cycles."""
    gc.freeze()  # what is loaded by now stays: a full collection need not walk it again and again
    gc.set_threshold(100_000, 20, 100)


@contextmanager
def _stores(work: Work, slot: int) -> Iterator[Stores]:
    settings = work.settings
    folder = Path(settings.state_dir) / quote(work.topology.app_id, safe="")
    kept = None if work.replay else folder / f"kept-{settings.state}"
    if settings.state == "memory":
        yield MemoryStores(kept)
        return
    with closing(RocksStores(folder / str(slot), settings.state_memory_mb, kept)) as stores:
        yield stores


def _watched(work: Work, broker: Broker, slot: int, stack: ExitStack) -> tuple[Several, Callable[[], Snapshot]]:
    """The observers of a worker, the web server over them, and a look at the totals."""
    settings, app_id = work.settings, work.topology.app_id
    observer = PrometheusObserver(
        app_id, work.sources, targets_s=(settings.latency_target_ms / 1000,), path="replay" if work.replay else "live"
    )
    health = Health()
    told = Several(observer, health)
    monitor = LagMonitor(broker, app_id, observer.owned, reachable=told.lag_reachable)
    observer.registry.register(monitor)
    monitor.start()
    stack.callback(monitor.close)
    if settings.http_port is not None:
        port = settings.http_port + slot if settings.http_port else 0
        server = serve(settings.http_host, port, observer.exposition, health)
        if server is not None:
            stack.callback(server.close)
            work.session.out.note(f"metrics and health: http://{settings.http_host}:{server.port}/metrics")

    def look() -> Snapshot:
        snapshot = observer.snapshot()
        lags = monitor.lags()
        if lags and all(lag.records is not None for lag in lags):
            snapshot.lag_records = sum(lag.records or 0 for lag in lags)
            snapshot.lag_seconds = max((lag.seconds for lag in lags if lag.seconds is not None), default=None)
        return snapshot

    return told, look


@contextmanager
def _reporting(path: Path, look: Callable[[], Snapshot]) -> Iterator[None]:
    stop = Event()

    def report() -> None:
        while not stop.wait(REPORT_EVERY_S):
            look().write(path)

    thread = Thread(target=report, name="report", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        look().write(path)


def run_several(
    work: Work, workers: int, arguments: Callable[[int, Path], Sequence[str]], total: int | None = None
) -> tuple[int, Snapshot]:
    """Run workers in processes of their own; `arguments(slot, folder)` is a worker's command line."""
    with tempfile.TemporaryDirectory(prefix="streampipe-") as name:
        folder = Path(name)
        with StatusLine(work.session.out, lambda: read_all(folder), work.sources, total):
            code = run_workers(
                workers, lambda slot: ["-m", "streampipe.cli.main", *work.session.arguments(), *arguments(slot, folder)]
            )
        return code, read_all(folder)
