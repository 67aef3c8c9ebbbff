"""The Task seam, and who watches a worker. The worker knows a task only by this protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from streampipe.records import IntArray, ProduceBatch, RecordBatch, TopicPartition
from streampipe.state.kept import Mark
from streampipe.state.port import StateStore

OUTCOMES = ("filtered", "dropped", "ok", "dlq")
"""Fates of a consumed record, weakest first: a record with several effects counts as the strongest of them."""


@dataclass(frozen=True, slots=True)
class SubTopology:
    """Inputs that must meet on one worker: partition p of all of them belongs together.

    While a table input of partition p is behind the end it had at assignment, the stream inputs of partition p
    are held back, so that a join does not miss rows that were there before.
    """

    streams: tuple[str, ...]
    tables: tuple[str, ...]
    before: tuple[str, ...] = ()
    """Inputs of others that come here through repartition topics, however many."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Every input of its own."""
        return self.streams + self.tables


@dataclass(frozen=True, slots=True)
class Restore:
    """State that must be read back before a partition may be processed.

    `source` is read from its first offset up to: `end` = its high watermark as captured beforehand with
    read_uncommitted (a changelog; KAFKA-10167), or `committed` = the group's committed offset (a table's own
    topic: what lies beyond is consumed as usual, so that each record meets its one fate once).
    """

    store: str
    partition: int
    source: TopicPartition
    upto: Literal["end", "committed"]
    mark: Mark | None = None
    """How far the state goes that was kept; the rest of `source` is enough then."""


@dataclass(slots=True)
class TaskOutput:
    """What a task gave since it was last asked. One commit makes all of it visible, or none of it."""

    records: list[ProduceBatch] = field(default_factory=list)
    changelog: list[ProduceBatch] = field(default_factory=list)
    dead_letters: list[ProduceBatch] = field(default_factory=list)
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    """Next offset to consume, of every partition processed since the last drain."""
    outcomes: dict[str, IntArray] = field(default_factory=dict)
    """Records by fate and input topic, in the order of OUTCOMES; they add up to what was processed."""
    failures: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Dead letters by (input topic, stage, failure class)."""
    late_drops: Counter[str] = field(default_factory=Counter)
    """Late records dropped by policy, by stage."""
    invalid_drops: Counter[str] = field(default_factory=Counter)
    """Records dropped by policy since their time cannot be used, by stage."""

    def __bool__(self) -> bool:
        return bool(self.records or self.changelog or self.dead_letters or self.offsets)

    def count(self, topic: str, fates: IntArray) -> None:
        """Add one batch's fates (indexes into OUTCOMES)."""
        counts = np.bincount(fates, minlength=len(OUTCOMES))
        self.outcomes[topic] = self.outcomes[topic] + counts if topic in self.outcomes else counts


class Task(Protocol):
    """The pure heart: batches in, output out. No clock, no socket, no thread, no log of payloads.

    It runs every task (sub-topology and partition) assigned to one worker, in columns across partitions; keyed
    state, stream time and lateness are kept for each partition apart.
    """

    subtopologies: Sequence[SubTopology]
    idle_after_s: float
    """The shortest silence of a partition that means something to it, in seconds; infinity: none does."""
    global_tables: Collection[str]
    """Topics that every worker reads whole, outside the group."""

    @property
    def replicated(self) -> Mapping[str, tuple[str, Collection[str]]]:
        """Stores that other workers may have copies of: changelog, and inputs of the sub-topology."""

    def replica(self, store: str, partition: int) -> StateStore:
        """Where such a copy is written to, as it is here now, for a partition that is not assigned."""

    def lend(self, store: str, partition: int, replica: StateStore, mark: Mark) -> None:
        """The partition will be assigned: its state is this copy, which goes up to `mark` in the changelog."""

    def assign(self, partitions: Collection[TopicPartition]) -> list[Restore]:
        """Take partitions on; returns what to restore before any of their records is processed."""

    def restore(self, what: Restore, batch: RecordBatch) -> None:
        """Feed changelog or table records of one `Restore`, in order. Raises StateCorrupted."""

    def restored(self, what: Restore) -> None:
        """All of one `Restore` has been fed: open its state. Raises StateCorrupted."""

    def forget_kept(self, what: Restore) -> None:
        """The state that this one came with is not to be used: everything will be fed."""

    def kept(self, partitions: Collection[TopicPartition]) -> list[Restore]:
        """What could be kept if these partitions were revoked: all state that would go with them."""

    def keep(self, what: Restore, mark: Mark) -> None:
        """Keep one of these for the next time, all of it being committed. Revoke next. Raises OSError."""

    def revoke(self, partitions: Collection[TopicPartition]) -> None:
        """Let partitions go: their state is closed and forgotten. Call drain first, or lose what is uncommitted."""

    def load(self, batch: RecordBatch) -> list[str]:
        """Apply records of a global table. Returns a line for each bad record, which is left out."""

    def times(self, batch: RecordBatch, now_ms: int | None = None) -> IntArray:
        """Event times in ms as the source of their topic takes them, negative where there is none that can be used.

        Raises Unavailable.
        """

    def process(self, batches: Sequence[RecordBatch], now_ms: int | None = None) -> None:
        """Process a batch, or one of each of several topics that meet, whose records belong in between each other.

        Raises Unavailable with nothing changed: call again with the same batches. `now_ms` is the wall clock, for
        bounds on how far ahead of it event time may be; None in a replay.
        Raises ProcessingStopped when a policy says stop at a record; discard the task's uncommitted output then.
        """

    def advance(self, now_ms: int, silent_s: Mapping[int, float], of: SubTopology | None = None) -> None:
        """Let stream time follow the wall clock in partitions that are silent for long enough. Never in a replay.

        `silent_s` has the partitions of the sub-topology `of` that are caught up, with the seconds since their last
        record; without `of` it is so for all sub-topologies.
        """

    def take(self) -> TaskOutput:
        """Output so far, for producing early into the open transaction; state stays unflushed."""

    def drain(self) -> TaskOutput:
        """Output so far, with pending updates emitted and dirty state as changelog records: ready to commit."""

    def close_windows(self) -> bool:
        """Close open windows as if stream time were infinite: the end of a finished input, by choice.

        One level of sub-topologies a call, upstream first, since what a level emits must reach the next one before
        that is closed. True when deeper levels are left: call again once the output is committed and processed.
        """


State = Literal["starting", "restoring", "running", "rebalancing", "draining", "failed", "stopped"]


class Observer(Protocol):
    """Told what a worker does, a call a batch or a commit, never a call a record. Calls come from the worker's
    thread, must not block and must not raise."""

    def state(self, state: State) -> None:
        """The worker is now in this state."""

    def polled(self, records: int, idle_s: float) -> None:
        """One poll came back after waiting `idle_s` seconds."""

    def consumed(self, topic: str, records: int, value_bytes: int) -> None:
        """Records were handed over from the broker."""

    def processed(self, stage: str, records: int, seconds: float) -> None:
        """The task spent `seconds` on a batch."""

    def committed(
        self,
        result: Literal["ok", "rebalance", "fenced", "error"],
        seconds: float,
        output: TaskOutput | None,
        latencies_s: dict[str, np.ndarray] | None,
    ) -> None:
        """A commit ended. With result ok: the counters and offsets of its output (its batches are not kept, see
        `produced`), and end-to-end latencies in seconds by input topic
        (now less the record's timestamp, one float64 a record; negative where clocks disagree)."""

    def produced(self, topic: str, records: int) -> None:
        """Records were acknowledged as part of a commit."""

    def rebalanced(self, kind: Literal["assigned", "revoked", "lost"], partitions: Sequence[TopicPartition],
                   seconds: float) -> None:  # fmt: skip
        """The group moved partitions; handling it took `seconds`."""

    def restoring(self, store: str, restored: int, remaining: int, seconds: float) -> None:
        """Progress of a restore: records done in this step, records still to do, seconds of this step."""

    def standing_by(self, partitions: int, behind: int) -> None:
        """How many partitions of other workers' state are copied here, and how many records are still to be copied."""

    def broker_reachable(self, reachable: bool) -> None:
        """Whether broker and registry answered when last asked."""

    def oldest_unprocessed(self, timestamps: dict[TopicPartition, int | None]) -> None:
        """Timestamp in ms of the oldest record not yet committed, by owned partition; None when caught up."""
