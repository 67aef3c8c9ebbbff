"""What a run leaves behind: the logs as read again from the broker, and the positions."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from streampipe.brokers.port import Admin, Broker, Isolation, Reader
from streampipe.records import Record, TopicPartition, records_of
from tests.chaos.processor import Topics
from tests.chaos.watch import Stall

Logs = dict[str, list[Record]]
"""Records by topic; those of one partition in log order."""
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Kill:
    """A kill -9: which slot, how many input records the group had committed then, of those fed and of all, whether a
    transaction of the slot was seen open right before, and when it was by the monotonic clock."""

    slot: int
    committed: int
    fed: int
    total: int
    in_transaction: bool
    at_s: float

    @property
    def mid_work(self) -> bool:
        return 0 < self.committed < self.total


@dataclass
class Evidence:
    """Everything the checker may look at."""

    topics: Topics
    logs: Logs
    """All topics, read with read_committed after the end."""
    observed: Logs
    """Topics that the processor writes, as a read_committed reader saw them from the start, while it happened."""
    schemas: dict[int, str]
    committed: dict[TopicPartition, int]
    ends: dict[TopicPartition, int]
    """High watermarks of all topics."""
    stable_ends: dict[TopicPartition, int]
    aborted: int
    """Records of aborted transactions."""
    held: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What each store held, restored from its changelog, when all was consumed and no window closed for that."""
    kills: list[Kill] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)
    """Deaths by failpoint."""
    missed: Counter[str] = field(default_factory=Counter)
    """Failpoints that a worker did not get to in time. Those that have to be reached are tried again."""
    points: Counter[str] = field(default_factory=Counter)
    """How often each failpoint was to be reached."""
    stalls: list[Stall] = field(default_factory=list)
    """When partitions of the input stood still."""
    restarts_s: list[float] = field(default_factory=list)
    """When Kafka was restarted, by the monotonic clock."""
    disturbances: Counter[str] = field(default_factory=Counter)
    """What else happened."""
    planned: Counter[str] = field(default_factory=Counter)
    """What else was to happen."""
    wiped: Counter[str] = field(default_factory=Counter)
    """Stores on disk by what was done to them between two workers."""


def partitions_of(admin: Admin, topics: Collection[str]) -> list[TopicPartition]:
    counts = admin.topics()
    return [TopicPartition(topic, n) for topic in topics for n in range(counts[topic])]


def read(broker: Broker, admin: Admin, topics: Collection[str], isolation: Isolation = "read_committed") -> Logs:
    """All that is there once no transaction is open: markers reach a partition only after a commit has returned."""
    partitions = partitions_of(admin, topics)
    ends = admin.offsets(partitions, "latest", "read_uncommitted")
    deadline = time.monotonic() + PATIENCE_S
    while isolation == "read_committed" and admin.offsets(partitions, "latest") != ends:
        assert time.monotonic() < deadline, f"a transaction is still open in {', '.join(topics)}"
        time.sleep(0.05)
    logs: Logs = {topic: [] for topic in topics}
    reader = broker.reader(admin.offsets(partitions, "earliest"), isolation)
    try:
        _read_until(reader, ends, logs)
    finally:
        reader.close()
    return logs


def _read_until(reader: Reader, ends: dict[TopicPartition, int], logs: Logs) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while any(reader.position(tp) < end for tp, end in ends.items()):
        assert time.monotonic() < deadline, (
            f"the end of {', '.join(map(str, ends))} was not reached within {PATIENCE_S:.0f} s"
        )
        if _take(reader, logs):
            deadline = time.monotonic() + PATIENCE_S


def _take(reader: Reader, logs: Logs) -> int:
    batches = reader.poll(5_000, 0.2)
    for batch in batches:
        logs[batch.topic] += records_of(batch)
    return len(batches)


class Observer(threading.Thread):
    """Reads topics with read_committed from their start on, as the records come."""

    def __init__(self, broker: Broker, admin: Admin, topics: Collection[str]) -> None:
        super().__init__(name="observer", daemon=True)
        self._broker, self._starts = broker, dict.fromkeys(partitions_of(admin, topics), 0)
        self._logs: Logs = {topic: [] for topic in topics}
        self._ends: dict[TopicPartition, int] | None = None
        self._ending = threading.Event()
        self._failed: Exception | None = None

    def run(self) -> None:
        """Until `finish` told the ends."""
        try:
            reader = self._broker.reader(self._starts)
            try:
                while not self._ending.is_set():
                    _take(reader, self._logs)
                _read_until(reader, self._ends or {}, self._logs)
            finally:
                reader.close()
        except Exception as error:  # noqa: BLE001 - told to the thread that asks
            self._failed = error

    def finish(self, ends: dict[TopicPartition, int]) -> Logs:
        """Everything seen up to these ends."""
        self._ends = {tp: end for tp, end in ends.items() if tp in self._starts}
        self.stop()
        assert not self.is_alive(), "the observer hangs"
        if self._failed is not None:
            raise self._failed
        return self._logs

    def stop(self) -> None:
        """End soon."""
        self._ending.set()
        self.join(2 * PATIENCE_S)


def schema_ids(logs: Iterable[Record]) -> set[int]:
    """Ids that framed values were written with."""
    return {int.from_bytes(r.value[1:5], "big") for r in logs if r.value and r.value[0] == 0}
