"""A processor with several workers, crashes and rebalances, in memory and in no time: same seed, same run."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from streampipe.brokers.simulated import SESSION_S, Crashed, Kind, SimulatedBroker, VirtualClock, possible
from streampipe.config import Settings
from streampipe.errors import Fenced
from streampipe.observe.dead_letters import DeadLetter, letters_of
from streampipe.observe.reading import read_between
from streampipe.processor import Processor
from streampipe.records import Record, TopicPartition, batch_of, records_of
from streampipe.runtime.plan import TaskBuilder
from streampipe.runtime.topics import external_inputs, prepare_topics
from streampipe.runtime.worker import Worker
from streampipe.schemas.registry.local import LocalRegistry
from streampipe.state.memory import MemoryStores
from streampipe.testing.topics import Event, Key, Output, Topics, ms_of
from streampipe.topology.graph import sub_graphs

Fault = Callable[[int, str], Kind | None]
_TURN_S = 0.02
_MAX_TURNS = 20_000
_ODDS = {"producer.commit": 0.3, "producer.send_offsets": 0.2, "producer": 0.1}
"""Of a fault, by call or by client: what changes something on the broker is worth more trouble."""
_KINDS: tuple[Kind, ...] = ("crash-before", "crash-after", "unavailable", "lost-answer", "delayed")


@dataclass(frozen=True, slots=True)
class Input:
    """An event to be consumed. `key` is by default made of the columns that the source or table names."""

    topic: str
    event: Event
    timestamp: datetime
    key: Key = None


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a run gave: everything that a reader of committed records sees in the end."""

    outputs: Mapping[str, list[Output]]
    """By topic: partition by partition, in order."""
    dead_letters: list[DeadLetter]
    committed: Mapping[TopicPartition, int]
    faults: list[tuple[int, str, Kind]]
    """Number of the effect (a call of a worker to the broker), its name, and what happened to it."""
    effects: int
    happened: Mapping[str, int]
    """How often workers crashed, froze until the group had given them up, or were stopped in order."""
    trace: str
    """Hash of every effect in order: equal for equal seeds."""

    def events(self, topic: str) -> list[dict[str, Any] | None]:
        """Events of a topic."""
        return [output.event for output in self.outputs.get(topic, [])]

    def by_key(self, topic: str) -> dict[bytes | None, list[dict[str, Any] | None]]:
        """Events of a topic by record key, in order: what does not depend on which worker was faster."""
        found: dict[bytes | None, list[dict[str, Any] | None]] = defaultdict(list)
        for output in self.outputs.get(topic, []):
            found[output.key].append(output.event)
        return dict(found)


def simulate(
    processor: Processor,
    inputs: Sequence[Input],
    *,
    before: Sequence[Input] = (),
    seed: int = 0,
    faults: int = 5,
    workers: int = 2,
    partitions: int = 2,
    schemas: str = "schemas",
    close_windows: bool = True,
    fault: Fault | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Simulation:
    """Run `workers` workers of a processor over these inputs, a few records at a time, until all is committed.

    What is `before` lies in the topics when the first worker starts, as do tables with which nothing is to race.

    With `faults`, about so many calls to the broker go wrong at moments that `seed` decides (0: none, and no other
    trouble either): workers die before or after a call, calls do not reach the broker or come to it late, answers are
    lost. Workers also freeze between two steps until the group has given them up and then go on, and are stopped in
    order; what is gone is started again.
    `fault(effect, name)` decides instead of chance. A processor is right if what it gives does not depend on any of it.

    Raises AssertionError when the run does not come to an end, and what a worker stops with.
    """
    with tempfile.TemporaryDirectory(prefix="streampipe-simulation-") as folder:
        chance = Random(seed)  # noqa: S311 - the same for the same seed, which is the point
        run = _Run(processor, Path(folder), chance, faults, partitions, schemas, fault, settings or {})
        with closing(run.registry):
            run.produce(before)
            run.feed(inputs, workers)
            run.finish(workers, close_windows=close_windows)
            return run.result()


@dataclass
class _Slot:
    """A worker's place: who is in it now, and until when nobody takes a turn."""

    number: int
    turns: Iterator[None] | None = None
    worker: Worker | None = None
    frozen_until_s: float = 0.0
    busy: bool = False
    """In the midst of a turn: a call of it may be delayed."""


@dataclass
class _Run:
    processor: Processor
    folder: Path
    chance: Random
    faults: int
    partitions: int
    schemas: str
    fault: Fault | None
    settings: Mapping[str, Any]
    happened: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("crashed", "frozen", "stopped"), 0))

    def __post_init__(self) -> None:
        self.clock = VirtualClock(ms_of(datetime(2026, 1, 1, tzinfo=UTC)))
        self.registry = LocalRegistry(":memory:")
        self.topology = self.processor.topology
        self.topics = Topics(self.topology, self.registry, self.schemas, self.partitions)
        self.broker = SimulatedBroker(self.folder, self.clock, self.fault or self._by_chance)
        self._producer = self.broker.inside.producer()
        self.broker.meanwhile = self._meanwhile
        self._slots: list[_Slot] = []
        self._options: dict[str, Any] = {}
        self.calm = self.faults == 0 and self.fault is None
        self._left, self._named = self.faults, 0
        self.consumed = sorted({topic for graph in sub_graphs(self.topology) for topic in graph.inputs})
        own = {"commit_interval_ms": 40, "max_poll_wait_ms": 1, "batch_size": 4, "transaction_timeout_ms": 2_000}
        self._settings = Settings(**(own | {"schemas": self.schemas} | dict(self.settings)))
        stores = MemoryStores(self.folder / "kept")  # of one machine: who takes a partition over finds what was kept
        self._build = TaskBuilder(
            self.topology, self.registry, self.schemas, sleep=self.clock.sleep_s, stores=stores
        ).build
        admin = self.broker.inside.admin()
        for topic in external_inputs(self.topology):
            admin.create_topic(topic, self.partitions)
        prepare_topics(self.topology, admin, create=True)
        admin.close()

    def _by_chance(self, _: int, name: str) -> Kind | None:
        odds = _ODDS.get(name, _ODDS.get(name.partition(".")[0], 0.01))
        if self._left <= 0 or self.chance.random() > odds:
            return None
        self._left -= 1
        return self.chance.choice([kind for kind in _KINDS if possible(name, kind)])

    def produce(self, inputs: Sequence[Input]) -> None:
        """Produce inputs, as somebody else than the workers."""
        for given in inputs:
            at_ms = ms_of(given.timestamp)
            self._producer.produce(self.topics.encoded(given.topic, [given.event], given.key, at_ms, ()))
        self._producer.flush()

    def feed(self, inputs: Sequence[Input], workers: int) -> None:
        """Produce the inputs a few at a time, and let the workers work on them."""
        self._slots = [_Slot(number) for number in range(workers)]
        waiting = list(inputs)
        for _ in range(_MAX_TURNS):
            if waiting and self.chance.random() < 0.3:
                few = self.chance.randint(1, 3)
                self.produce(waiting[:few])
                del waiting[:few]
            if not waiting and self.chance.random() < 0.2 and self._all_committed():
                break
            self._turn(self.chance.choice(self._slots))
        else:
            raise AssertionError(f"after {_MAX_TURNS} turns the inputs are not committed")
        self._producer.close()
        for slot in self._slots:
            self._stop(slot)

    def _all_committed(self) -> bool:
        admin = self.broker.inside.admin()
        every = [TopicPartition(t, p) for t in self.consumed for p in range(self.partitions)]
        ends, committed = admin.offsets(every, "latest"), admin.committed(self.topology.app_id)
        admin.close()
        return all(committed.get(tp, 0) >= end for tp, end in ends.items())

    def _turn(self, slot: _Slot) -> None:
        """Somebody's turn, or trouble for it."""
        self.clock.sleep_s(self.chance.random() * _TURN_S)
        if self.clock.monotonic_s() < slot.frozen_until_s:
            return
        if slot.turns is None:
            self._start(slot)
        if not self.calm and self.chance.random() < 0.003 * self.faults:
            if self.chance.random() < 0.5:
                slot.frozen_until_s = self.clock.monotonic_s() + 2 * SESSION_S
                self.happened["frozen"] += 1
            else:
                self._stop(slot)
            return
        self._go_on(slot)

    def _go_on(self, slot: _Slot) -> None:
        """A turn of the worker in a place; one that died is followed by another."""
        assert slot.turns is not None
        slot.busy = True
        try:
            next(slot.turns)
        except StopIteration:
            slot.turns = slot.worker = None
        except (Crashed, Fenced):  # one that was fenced too often ends, and is started again by a supervisor
            self.happened["crashed"] += 1
            self._start(slot)
        finally:
            slot.busy = False

    def _meanwhile(self) -> None:
        """A call is on its way, and the others work on, until the group has given its worker up."""
        until_s = self.clock.monotonic_s() + 2 * SESSION_S
        while (now_s := self.clock.monotonic_s()) < until_s:
            self.clock.sleep_s(SESSION_S / 10)
            awake = [slot for slot in self._slots if slot.turns is not None and slot.frozen_until_s <= now_s]
            if others := [slot for slot in awake if not slot.busy]:
                self._go_on(self.chance.choice(others))

    def _start(self, slot: _Slot) -> None:
        self._named += 1
        slot.worker = Worker(
            self._build, self.broker.of(f"{slot.number}.{self._named}"), self._settings,
            app_id=self.topology.app_id, slot=slot.number, clock=self.clock, **self._options,
        )  # fmt: skip
        slot.turns = slot.worker.turns()

    def _stop(self, slot: _Slot) -> None:
        """As by SIGTERM."""
        if slot.worker is None or slot.turns is None:
            return
        slot.worker.stop()
        slot.busy = True
        try:
            for _ in slot.turns:
                pass
            self.happened["stopped"] += 1
        except Crashed:
            self.happened["crashed"] += 1
        slot.turns, slot.worker, slot.busy = None, None, False

    def finish(self, workers: int, *, close_windows: bool) -> None:
        """The end of the input, without further trouble."""
        self._left, self.calm = 0, True
        self.clock.sleep_s(2 * SESSION_S)  # else what belongs to the dead is left to a next run
        self._options = {"until_caught_up": True, "close_windows": close_windows}
        self._slots = [_Slot(number) for number in range(workers)]
        for slot in self._slots:
            self._start(slot)
        for _ in range(_MAX_TURNS):
            going = [slot for slot in self._slots if slot.turns is not None]
            if not going:
                return
            slot = self.chance.choice(going)
            self.clock.sleep_s(_TURN_S)
            self._go_on(slot)
        raise AssertionError(f"after {_MAX_TURNS} turns the workers do not come to an end")

    def result(self) -> Simulation:
        """What there is in the end."""
        admin = self.broker.inside.admin()
        there = admin.topics()
        letters = self.topology.dead_letter_topic
        records = {topic: self._records(admin, topic) for topic in there}
        committed = admin.committed(self.topology.app_id)
        admin.close()
        inputs = {*self.consumed, *external_inputs(self.topology), letters}
        written = [t for t in there if t not in inputs and not t.endswith(("-changelog", "-repartition"))]
        return Simulation(
            {topic: self.topics.decoded(records[topic]) for topic in written},
            list(letters_of(batch_of(found))) if (found := records[letters]) else [], committed, self.broker.struck,
            self.broker.effects, self.happened, self.broker.trace.hash(),
        )  # fmt: skip

    def _records(self, admin: Any, topic: str) -> list[Record]:
        every = [TopicPartition(topic, p) for p in range(admin.topics()[topic])]
        starts, ends = admin.offsets(every, "earliest"), admin.offsets(every, "latest")
        found = [r for batch in read_between(self.broker.inside, starts, ends) for r in records_of(batch)]
        return sorted(found, key=lambda record: (record.partition, record.offset))
