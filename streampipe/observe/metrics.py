"""What a worker does, as Prometheus metrics: the service level indicators and what explains them.

Names carry base units; timestamps are exported, never ages; label sets that are known are there at zero from the
start. Nothing is labelled by key, offset, member or exception text.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Collection, Sequence
from typing import Literal, get_args

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Info, disable_created_metrics, generate_latest

from streampipe.observe.histogram import BatchHistogram, geometric_bounds
from streampipe.observe.observers import CommitResult, Latencies, RebalanceKind
from streampipe.observe.summary import Snapshot
from streampipe.records import IntArray, TopicPartition
from streampipe.runtime.port import OUTCOMES, State, TaskOutput

PathLabel = Literal["live", "replay"]


class PrometheusObserver:
    """A `runtime.port.Observer` with a metrics registry of its own.

    `sources` are the topics that others write: only their latency is measured. `targets_s` become exact bounds of the
    latency buckets; `path` keeps a replay's latencies, which are ages, out of the live objective; `wall_s` is the
    clock of the timestamps.
    """

    def __init__(
        self,
        pipeline: str,
        sources: Collection[str] = (),
        *,
        targets_s: Sequence[float] = (5.0,),
        path: PathLabel = "live",
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves this one function untyped
        self.registry = CollectorRegistry()
        self._pipeline, self._path, self._wall_s = pipeline, path, wall_s
        self._sources = frozenset(sources)
        self._owned: set[TopicPartition] = set()
        self._restoring: dict[str, tuple[int, float]] = {}
        self._outcomes: dict[str, IntArray] = {}
        self._now_in: State = "starting"
        self._first_s: float | None = None
        self._last_s: float | None = None
        self._declare_records()
        self._declare_loop()
        self._declare_group_and_state()
        self._declare_histograms(targets_s)
        for topic in sources:
            self._touch_topic(topic)

    # -- the observer -------------------------------------------------------------------------------------------

    def state(self, state: State) -> None:
        """The worker is now in this state."""
        self._now_in = state
        self._state.labels(self._pipeline).state(state)

    def polled(self, records: int, idle_s: float) -> None:  # noqa: ARG002  # the protocol's parameter
        """One poll came back after waiting `idle_s` seconds."""
        self._idle.inc(idle_s)
        self._last_poll.set(self._wall_s())

    def consumed(self, topic: str, records: int, value_bytes: int) -> None:
        """Records were handed over from the broker."""
        if self._first_s is None:
            self._first_s = self._wall_s()
        self._consumed.labels(self._pipeline, topic).inc(records)
        self._bytes.labels(self._pipeline, topic).inc(value_bytes)

    def processed(self, stage: str, records: int, seconds: float) -> None:  # noqa: ARG002  # the protocol's parameter
        """The task spent `seconds` on a batch."""
        self._busy.inc(seconds)
        self.processing.record((self._pipeline, stage), np.array([seconds]))

    def committed(
        self,
        result: CommitResult,
        seconds: float,
        output: TaskOutput | None,
        latencies_s: Latencies | None,
    ) -> None:
        """A commit ended; what it made visible is counted now and not before."""
        self._commits.labels(self._pipeline, result).inc()
        self.commit_duration.record((self._pipeline, result), np.array([seconds]))
        if result != "ok":
            return
        self._last_s = self._wall_s()
        self._last_commit.set(self._last_s)
        if output is not None:
            self._count(output)
        for topic, latencies in (latencies_s or {}).items():
            if topic in self._sources:  # records of our own topics carry event time, not the time they arrived
                self._latencies(topic, latencies)

    def produced(self, topic: str, records: int) -> None:
        """Records were acknowledged as part of a commit."""
        self._produced.labels(self._pipeline, topic, "ok").inc(records)

    def rebalanced(self, kind: RebalanceKind, partitions: Sequence[TopicPartition], seconds: float) -> None:
        """The group moved partitions; those that went take their series along."""
        self._rebalances.labels(self._pipeline, kind).inc()
        self.rebalance_duration.record((self._pipeline, kind), np.array([seconds]))
        if kind == "assigned":
            self._owned.update(partitions)
        else:
            self._owned.difference_update(partitions)
            for gone in partitions:
                self._drop(self._oldest, gone)
                self._drop(self._last_progress, gone)
        self._assigned.set(len(self._owned))

    def restoring(self, store: str, restored: int, remaining: int, seconds: float) -> None:
        """Progress of a restore; its duration is observed once it is through."""
        self._restored.labels(self._pipeline, store).inc(restored)
        self._remaining.labels(self._pipeline, store).set(remaining)
        before, spent = self._restoring.pop(store, (0, 0.0))
        done, spent = before + restored, spent + seconds
        self._restore_left.labels(self._pipeline, store).set(remaining * spent / done if remaining and done else 0.0)
        if remaining:
            self._restoring[store] = done, spent
        elif done:
            self.restore_duration.record((self._pipeline, store), np.array([spent]))

    def standing_by(self, partitions: int, behind: int) -> None:
        """Copies of other workers' state."""
        self._standby_partitions.labels(self._pipeline).set(partitions)
        self._standby_behind.labels(self._pipeline).set(behind)

    def broker_reachable(self, reachable: bool) -> None:
        """Whether broker and registry answered when last asked."""
        self._reachable.set(float(reachable))

    def oldest_unprocessed(self, timestamps: dict[TopicPartition, int | None]) -> None:
        """Timestamp in ms of the oldest record not yet committed; the series of a partition without one goes."""
        for partition, timestamp in timestamps.items():
            if timestamp is None or timestamp < 0:
                self._drop(self._oldest, partition)
            else:
                self._oldest.labels(self._pipeline, partition.topic, str(partition.partition)).set(timestamp / 1000)

    # -- for people ---------------------------------------------------------------------------------------------

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def snapshot(self) -> Snapshot:
        """Totals so far."""
        return Snapshot(
            self._now_in,
            {topic: counts.tolist() for topic, counts in self._outcomes.copy().items()},
            self.latency.bounds.tolist(),
            self.latency.counts().tolist(),
            self._first_s,
            self._last_s,
        )

    def owned(self) -> set[TopicPartition]:
        """The partitions this worker has now."""
        return set(self._owned)

    # -- inside -------------------------------------------------------------------------------------------------

    def _count(self, output: TaskOutput) -> None:
        pipeline = self._pipeline
        for topic, counts in output.outcomes.items():
            self._outcomes[topic] = self._outcomes.get(topic, 0) + counts
            for outcome, count in zip(OUTCOMES, counts.tolist(), strict=True):
                self.records.labels(pipeline, topic, outcome).inc(count)
        for (topic, stage, failure_class), count in output.failures.items():
            self._dlq.labels(pipeline, topic, stage, failure_class).inc(count)
        for stage, count in output.late_drops.items():
            self._late.labels(pipeline, stage).inc(count)
        for stage, count in output.invalid_drops.items():
            self._invalid.labels(pipeline, stage).inc(count)
        now = self._wall_s()
        for partition in output.offsets.keys() & self._owned:
            self._last_progress.labels(pipeline, partition.topic, str(partition.partition)).set(now)

    def _latencies(self, topic: str, latencies: np.ndarray) -> None:
        """Negative ones are two clocks disagreeing: counted apart and taken as zero, since a sum may not shrink."""
        skewed = int(np.count_nonzero(latencies < 0))
        if skewed:
            self._skew.labels(self._pipeline, topic).inc(skewed)
            latencies = np.maximum(latencies, 0.0)
        self.latency.record((self._pipeline, topic, self._path), latencies)

    def _drop(self, gauge: Gauge, partition: TopicPartition) -> None:
        gauge.remove(self._pipeline, partition.topic, str(partition.partition))

    def _touch_topic(self, topic: str) -> None:
        self._consumed.labels(self._pipeline, topic)
        self._bytes.labels(self._pipeline, topic)
        self._skew.labels(self._pipeline, topic)
        for outcome in OUTCOMES:
            self.records.labels(self._pipeline, topic, outcome)
        self.latency.touch((self._pipeline, topic, self._path))

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(f"streampipe_{name}", help_text, ("pipeline", *labels), registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(f"streampipe_{name}", help_text, ("pipeline", *labels), registry=self.registry)

    def _histogram(self, name: str, help_text: str, labels: Sequence[str], bounds: np.ndarray) -> BatchHistogram:
        made = BatchHistogram(f"streampipe_{name}", help_text, ("pipeline", *labels), bounds)
        self.registry.register(made)
        return made

    def _declare_records(self) -> None:
        self._consumed = self._counter("records_consumed", "Records handed over from poll.", "topic")
        self._bytes = self._counter("consumed_bytes", "Bytes of the values handed over from poll.", "topic")
        self.records = self._counter("records", "Records by their one fate, once committed.", "topic", "outcome")
        self._produced = self._counter("records_produced", "Records acknowledged by the broker.", "topic", "result")
        self._skew = self._counter("clock_skew_records", "Records from the future, by our clock.", "topic")
        self._late = self._counter("late_records_dropped", "Late records dropped by policy.", "stage")
        self._invalid = self._counter(
            "invalid_timestamps_dropped", "Records dropped by policy since their time cannot be used.", "stage"
        )
        self._dlq = self._counter("dlq_records", "Dead letters.", "topic", "stage", "failure_class")

    def _declare_loop(self) -> None:
        self._idle = self._counter("poll_idle_seconds", "Time waited for records.").labels(self._pipeline)
        self._busy = self._counter("busy_seconds", "Time spent processing.").labels(self._pipeline)
        self._last_poll = self._gauge("last_poll_timestamp_seconds", "When poll last came back.").labels(self._pipeline)
        self._last_commit = self._gauge("last_commit_timestamp_seconds", "When a commit last succeeded.").labels(
            self._pipeline
        )
        self._last_progress = self._gauge(
            "last_progress_timestamp_seconds", "When a partition's offset last moved.", "topic", "partition"
        )
        self._oldest = self._gauge(
            "oldest_unprocessed_timestamp_seconds",
            "Timestamp of the oldest record not yet committed; absent when caught up.",
            "topic",
            "partition",
        )

    def _declare_group_and_state(self) -> None:
        self._commits = self._counter("commits", "Commits by result.", "result")
        self._rebalances = self._counter("rebalances", "Rebalances by kind.", "kind")
        self._assigned = self._gauge("assigned_partitions", "Partitions of this worker.").labels(self._pipeline)
        self._restored = self._counter("restored_records", "Records read back into state.", "store")
        self._remaining = self._gauge("restore_remaining_records", "Records still to be read back.", "store")
        self._standby_partitions = self._gauge("standby_partitions", "Partitions of state copied from others.")
        self._standby_behind = self._gauge("standby_lag_records", "Records that these copies are behind.")
        self._restore_left = self._gauge("restore_remaining_seconds", "How long that will take, about.", "store")
        self._reachable = self._gauge("broker_reachable", "1 while broker and registry answer.").labels(self._pipeline)
        self._reachable.set(1.0)  # workers tell changes only
        self._state = Enum(
            "streampipe_state", "What the worker is doing.", ("pipeline",), states=get_args(State),
            registry=self.registry,
        )  # fmt: skip
        self._state.labels(self._pipeline).state("starting")
        info = Info("streampipe_build", "The version that runs.", registry=self.registry)
        info.info({"version": _version()})
        for result in get_args(CommitResult):
            self._commits.labels(self._pipeline, result)
        for kind in get_args(RebalanceKind):
            self._rebalances.labels(self._pipeline, kind)

    def _declare_histograms(self, targets_s: Sequence[float]) -> None:
        work = geometric_bounds(0.001, 28, targets_s)
        self.processing = self._histogram(
            "processing_duration_seconds", "Time spent on one batch, retries included.", ("stage",), work
        )
        self.latency = self._histogram(
            "e2e_latency_seconds",
            "From a record's timestamp to the commit of what came of it.",
            ("topic", "path"),
            geometric_bounds(0.01, 38, targets_s),
        )
        self.commit_duration = self._histogram("commit_duration_seconds", "Time of a commit.", ("result",), work)
        self.rebalance_duration = self._histogram(
            "rebalance_duration_seconds", "Time spent handling a rebalance.", ("kind",), work
        )
        self.restore_duration = self._histogram(
            "restore_duration_seconds", "Time of a whole restore.", ("store",), geometric_bounds(0.01, 38)
        )


def _version() -> str:
    try:
        return importlib.metadata.version("streampipe")
    except importlib.metadata.PackageNotFoundError:  # runs from a source folder that nobody installed
        return "unknown"
