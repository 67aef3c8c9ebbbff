"""The pure task: a topology's operators wired together, fed with batches, giving output. See `port.Task`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from streampipe.operators.edges import SourceStep
from streampipe.operators.effects import Collected, Effects
from streampipe.operators.frame import Frame, Origin
from streampipe.operators.stateful import StatefulStep
from streampipe.operators.stateless import MergeStep
from streampipe.operators.tables.table import TableStep
from streampipe.records import IntArray, RecordBatch, TopicPartition
from streampipe.runtime.port import Restore, SubTopology, TaskOutput
from streampipe.state.kept import Mark
from streampipe.state.port import StateStore

Input = SourceStep | TableStep


class TopologyTask:
    """`Task` for one topology. `stateful` has, for each sub-topology, its depth and the steps that keep state."""

    def __init__(
        self,
        effects: Effects,
        inputs: Mapping[str, Sequence[Input]],
        subtopologies: Sequence[SubTopology],
        stateful: Sequence[tuple[int, Sequence[StatefulStep]]],
        tables: Sequence[TableStep],
        merges: Sequence[MergeStep],
    ) -> None:
        self.subtopologies = subtopologies
        self._effects, self._inputs, self._stateful = effects, inputs, stateful
        self._merges = merges
        self._steps = [step for _, steps in stateful for step in steps]
        waits = [0.0 if s.clocked else s.idle_after_s for s in self._steps if s.timed]
        self.idle_after_s = min((wait_s for wait_s in waits if wait_s is not None), default=math.inf)
        self._shared = {
            t.topic: [s for s in tables if s.everywhere and s.topic == t.topic] for t in tables if t.everywhere
        }
        self.global_tables: Collection[str] = tuple(self._shared)
        self.stores: Mapping[str, StatefulStep] = {step.name: step for step in (*self._steps, *tables)}
        """Everything that keeps state, by the name of its store."""
        self._owned: set[TopicPartition] = set()
        self._open: set[tuple[int, int]] = set()
        self._unsettled: set[tuple[str, int]] = set()
        self._output = TaskOutput()
        self._closed_depth = -1

    @property
    def replicated(self) -> dict[str, tuple[str, Collection[str]]]:
        """Stores that other workers may have copies of: changelog, and inputs of the sub-topology."""
        return {
            step.name: (step.changelog, (*sub.streams, *sub.tables))
            for sub, (_, steps) in zip(self.subtopologies, self._stateful, strict=True)
            for step in steps
            if step.replicates
        }

    def replica(self, store: str, partition: int) -> StateStore:
        """Where such a copy is written to."""
        return self.stores[store].replica(partition)

    def lend(self, store: str, partition: int, replica: StateStore, mark: Mark) -> None:
        """The partition will be assigned, with this as its state."""
        self.stores[store].lend(partition, replica, mark)

    def assign(self, partitions: Collection[TopicPartition]) -> list[Restore]:
        """Take partitions on; returns what to restore before any of their records is processed."""
        self._owned.update(partitions)
        restores = []
        for number, sub in enumerate(self.subtopologies):
            inputs = {*sub.streams, *sub.tables}
            for partition in sorted({p.partition for p in partitions if p.topic in inputs}):
                if (number, partition) not in self._open:
                    self._open.add((number, partition))
                    restores += [self._restore_of(step, partition) for step in self._stateful[number][1]]
        return restores

    def _restore_of(self, step: StatefulStep, partition: int) -> Restore:
        step.open(partition)
        self._unsettled.add((step.name, partition))
        mark = step.mark(partition)
        return Restore(step.name, partition, TopicPartition(step.changelog, partition), step.upto, mark)

    def restore(self, what: Restore, batch: RecordBatch) -> None:
        """Feed changelog or table records of one `Restore`, in order."""
        self.stores[what.store].restore(what.partition, batch)

    def restored(self, what: Restore) -> None:
        """All of one `Restore` has been fed: open its state."""
        self._open_state(what.store, what.partition)

    def _open_state(self, store: str, partition: int) -> None:
        if (store, partition) in self._unsettled:
            self._unsettled.discard((store, partition))
            self.stores[store].restored(partition)

    def revoke(self, partitions: Collection[TopicPartition]) -> None:
        """Let partitions go; state goes with the last input of its sub-topology and partition."""
        self._owned.difference_update(partitions)
        for number, partition in self._open_without(self._owned):
            self._open.discard((number, partition))
            for step in self._stateful[number][1]:
                step.close(partition)
                self._unsettled.discard((step.name, partition))

    def _open_without(self, owned: Collection[TopicPartition]) -> list[tuple[int, int]]:
        """Sub-topologies and partitions that are open though these have no input of theirs."""
        gone = []
        for number, partition in sorted(self._open):
            sub = self.subtopologies[number]
            if not any(TopicPartition(t, partition) in owned for t in (*sub.streams, *sub.tables)):
                gone.append((number, partition))
        return gone

    def kept(self, partitions: Collection[TopicPartition]) -> list[Restore]:
        """What could be kept if these partitions were revoked."""
        return [
            Restore(step.name, partition, TopicPartition(step.changelog, partition), step.upto)
            for number, partition in self._open_without(self._owned.difference(partitions))
            for step in self._stateful[number][1]
            if step.keeps
        ]

    def keep(self, what: Restore, mark: Mark) -> None:
        """Keep one of these for the next time. Raises OSError."""
        self._open_state(what.store, what.partition)
        self.stores[what.store].keep(what.partition, mark)

    def forget_kept(self, what: Restore) -> None:
        """The state that this one came with is not to be used."""
        self.stores[what.store].forget_kept(what.partition)

    def look(self, store: str, partition: int) -> list[Frame]:
        """What a store holds for a partition (`GLOBAL` for a global table) once it is restored.

        The task is for looking only from then on: nothing comes of what it is fed.
        """
        step = self.stores[store]
        self._open_state(store, partition)
        collected = Collected(self._effects)
        step.children[:] = [collected]
        step.show(partition)
        return collected.frames

    def load(self, batch: RecordBatch) -> list[str]:
        """Apply records of a global table; a line for each bad one."""
        return [line for step in self._shared[batch.topic] for line in step.load(batch)]

    def times(self, batch: RecordBatch, now_ms: int | None = None) -> IntArray:
        """Event times in ms as the source takes them, negative where there is none. Raises Unavailable."""
        sources = [step for step in self._inputs[batch.topic] if isinstance(step, SourceStep)]
        return sources[0].times(batch, now_ms)

    def process(self, batches: Sequence[RecordBatch], now_ms: int | None = None) -> None:
        """Process batches of one point in time, one of a topic. Raises Unavailable with nothing changed, or
        ProcessingStopped.

        Each topic's records see stream time as it was before all of them, and as they move it themselves. That is what
        they would see in the order of their times, if all topics come to the same point.
        """
        self._effects.now_ms = now_ms
        steps = {batch.topic: self._inputs[batch.topic] for batch in batches}
        # all that may be unavailable, before any effect
        decoded = [[step.decode(batch) for step in steps[batch.topic]] for batch in batches]
        together = [step for step in self._steps if step.timed] if len(batches) > 1 else []
        for step in together:
            step.hold_time()
        for batch, columns in zip(batches, decoded, strict=True):
            self._feed(batch, steps[batch.topic], columns)
        for step in together:
            step.go_on()
            self._through()

    def _feed(self, batch: RecordBatch, steps: Sequence[Input], decoded: Sequence[Any]) -> None:
        partitions = np.unique(batch.partitions).tolist()
        self._settle(partitions, [batch.topic])
        first = Origin.of(batch)
        for step, columns in zip(steps, decoded, strict=True):
            origin = Origin.of(batch)
            origin.fates = first.fates  # one fate a record, however many nodes read its topic
            step.feed(origin, columns)
        self._through()
        self._output.count(batch.topic, first.fates)
        for partition in partitions:
            end = int(batch.offsets[batch.partitions == partition].max()) + 1
            self._output.offsets[TopicPartition(batch.topic, partition)] = end

    def _through(self) -> None:
        """A batch is through the operators: what had to wait for the whole of it goes on."""
        for step in self._merges:
            step.settle()
        self._effects.settle()

    def _settle(self, partitions: Collection[int], topics: Collection[str] | None = None) -> None:
        """State of these partitions has been restored, or they would not be processed: open it.

        Only that of the sub-topologies which read one of `topics`: partitions of the same number of others may be on
        their way.
        """
        if not self._unsettled:
            return
        for sub, (_, steps) in zip(self.subtopologies, self._stateful, strict=True):
            if topics is None or any(topic in sub.inputs for topic in topics):
                for step in steps:
                    for partition in partitions:
                        self._open_state(step.name, partition)

    def advance(self, now_ms: int, silent_s: Mapping[int, float], of: SubTopology | None = None) -> None:
        """Let stream time follow the wall clock in partitions that are silent for long enough."""
        for sub, (_, steps) in zip(self.subtopologies, self._stateful, strict=True):
            if of is None or sub == of:
                self._settle(silent_s, sub.inputs)
                for step in steps:
                    if step.timed:
                        self._pass_time(step, now_ms, silent_s)

    def _pass_time(self, step: StatefulStep, now_ms: int, silent_s: Mapping[int, float]) -> None:
        after_s = math.inf if step.idle_after_s is None else step.idle_after_s
        idle = [partition for partition, silence_s in silent_s.items() if silence_s >= after_s]
        if idle:
            step.advance(now_ms, idle)
        if step.clocked:
            step.tick(now_ms, silent_s.keys())
        self._through()

    def close_windows(self) -> bool:
        """Close the open windows of the next level of sub-topologies; True when deeper ones are left."""
        self._settle([partition for _, partition in sorted(self._open)])
        timed = [(depth, s) for depth, steps in self._stateful for s in steps if s.timed]
        deeper = sorted({depth for depth, _ in timed if depth > self._closed_depth})
        self._closed_depth = deeper[0] if deeper else self._closed_depth
        for depth, step in timed:
            if depth <= self._closed_depth:
                step.close_all()
                self._through()
        return len(deeper) > 1

    def take(self) -> TaskOutput:
        """Output so far."""
        effects, out = self._effects, self._output
        out.records, effects.records = effects.records, []
        out.changelog, effects.changelog = effects.changelog, []
        out.dead_letters = effects.take_dead_letters()
        out.failures, effects.failures = effects.failures, type(effects.failures)()
        out.late_drops, effects.late_drops = effects.late_drops, type(effects.late_drops)()
        out.invalid_drops, effects.invalid_drops = effects.invalid_drops, type(effects.invalid_drops)()
        self._output = TaskOutput()
        return out

    def drain(self) -> TaskOutput:
        """Output so far, pending updates and dirty state included."""
        for step in self._steps:
            step.flush()
            self._through()
        return self.take()
