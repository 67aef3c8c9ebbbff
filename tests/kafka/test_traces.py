"""Scripts of transactions, successors and zombies show the same on the simulator and on a real Kafka."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

import pytest

from streampipe.brokers.kafka import KafkaBroker
from streampipe.brokers.port import Broker, Producer
from streampipe.brokers.simulated import SimulatedBroker, VirtualClock
from streampipe.errors import Fenced
from streampipe.records import TopicPartition, records_of
from tests.brokers.helpers import Lab, batch, eventually, settle, unique

TRACES, TOGETHER, STEPS = 50, 5, 16
WRITERS, PARTITIONS, INPUT = 2, 2, 40

Kind = Literal["produce", "offsets", "commit", "abort", "replace", "zombie"]


@dataclass(frozen=True)
class Step:
    """What one writer does."""

    kind: Kind
    writer: int
    count: int = 0


def script(seed: int) -> list[Step]:
    """A script in which every step is allowed: a transaction is ended only by who has one, and only once."""
    chance, steps = Random(seed), list[Step]()
    begun, replaced = [False] * WRITERS, [False] * WRITERS
    for _ in range(STEPS):
        writer = chance.randrange(WRITERS)
        kinds: list[Kind] = ["produce", "produce", "offsets", "replace"]
        if begun[writer]:
            kinds += ["commit", "commit", "abort"]
        if replaced[writer]:
            kinds += ["zombie", "zombie"]
        kind = chance.choice(kinds)
        steps.append(Step(kind, writer, chance.randint(1, 3)))
        begun[writer] = kind in ("produce", "offsets") or (kind == "zombie" and begun[writer])
        replaced[writer] = kind == "replace" or (replaced[writer] and kind != "zombie")
    return steps


@dataclass
class Expected:
    """What the definition of transactions says must be visible."""

    log: list[list[tuple[bytes, int]]] = field(default_factory=lambda: [[] for _ in range(PARTITIONS)])
    """Values and their transactions, by partition."""
    state: list[bool | None] = field(default_factory=list)
    """Of each transaction: committed, aborted, or open."""
    committed: tuple[int, int] = (0, 0)
    """When it was sent, and the offset."""

    def visible(self, partition: int) -> list[bytes]:
        """Committed values before the first one of an open transaction: those below the last stable offset."""
        log = self.log[partition]
        stable = next((i for i, (_, tx) in enumerate(log) if self.state[tx] is None), len(log))
        return [value for value, tx in log[:stable] if self.state[tx]]


@dataclass
class _Writer:
    producer: Producer
    transaction: int | None = None
    sent: tuple[int, int] = (0, 0)
    zombie: Producer | None = None
    zombie_begun: bool = False


class Player:
    """Plays one script on one broker, and notes what a reader, the group and each writer saw after every step."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self.seen = lab, list[object]()
        self._source, self._sink, self._group = lab.topic(), lab.topic(PARTITIONS), unique("group")
        self._partitions = [TopicPartition(self._sink, n) for n in range(PARTITIONS)]
        lab.produce(self._source, *(b"%d" % n for n in range(INPUT)))
        self._member = lab.member(self._group, self._source)
        settle([self._member], [TopicPartition(self._source, 0)])
        self._ids = [unique("tx") for _ in range(WRITERS)]
        self._writers = [_Writer(lab.producer(id_)) for id_ in self._ids]
        self._reader = lab.reader(*self._partitions)
        self._read: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
        self._expected, self._made = Expected(), 0

    def play(self, steps: list[Step]) -> list[object]:
        """Everything that was seen."""
        for step in steps:
            self._member.step(0.0)
            getattr(self, f"_{step.kind}")(self._writers[step.writer], step)
            eventually(self._as_expected, f"{self._expected} is seen after {step} of {steps}, not {self._read}", 20)
            self.seen.append((step, [list(values) for values in self._read], self._group_offset()))
        return self.seen

    def _as_expected(self) -> bool:
        for found in self._reader.poll(1000, 0.01):
            for record in records_of(found):
                self._read[record.partition].append(record.value or b"")
        wanted = [self._expected.visible(partition) for partition in range(PARTITIONS)]
        assert all(read == want[: len(read)] for read, want in zip(self._read, wanted, strict=True)), "too much is seen"
        return self._read == wanted and self._group_offset() == self._expected.committed[1]

    def _group_offset(self) -> int:
        return self._lab.admin.committed(self._group).get(TopicPartition(self._source, 0), 0)

    def _begin(self, writer: _Writer) -> int:
        if writer.transaction is None:
            writer.producer.begin()
            writer.transaction = len(self._expected.state)
            self._expected.state.append(None)
        return writer.transaction

    def _produce(self, writer: _Writer, step: Step) -> None:
        transaction = self._begin(writer)
        values = [b"%d" % (self._made + n) for n in range(step.count)]
        self._made += step.count
        homes = [n % PARTITIONS for n in range(step.count)]
        writer.producer.produce(batch(self._sink, *values, keys=[None] * len(values), partitions=homes))
        writer.producer.flush()
        for value, home in zip(values, homes, strict=True):
            self._expected.log[home].append((value, transaction))

    def _offsets(self, writer: _Writer, step: Step) -> None:
        self._begin(writer)
        self._made += 1
        writer.sent = self._made, self._made % INPUT
        metadata = self._member.consumer.group_metadata()
        writer.producer.send_offsets({TopicPartition(self._source, 0): writer.sent[1]}, metadata)

    def _commit(self, writer: _Writer, step: Step) -> None:
        writer.producer.commit()
        # what was sent before that which the group has is too late, whenever its transaction ends
        self._expected.committed = max(self._expected.committed, writer.sent)
        self._end(writer, committed=True)

    def _abort(self, writer: _Writer, step: Step) -> None:
        writer.producer.abort()
        self._end(writer, committed=False)

    def _end(self, writer: _Writer, *, committed: bool) -> None:
        if writer.transaction is not None:
            self._expected.state[writer.transaction] = committed
        writer.transaction, writer.sent = None, (0, 0)

    def _replace(self, writer: _Writer, step: Step) -> None:
        """A successor ends what the one before left open."""
        writer.zombie, writer.producer = writer.producer, self._lab.producer(self._ids[step.writer])
        writer.zombie_begun = writer.transaction is not None
        self._end(writer, committed=False)

    def _zombie(self, writer: _Writer, step: Step) -> None:
        """The one before wakes up and tries to go on."""
        zombie, writer.zombie = writer.zombie, None
        assert zombie is not None
        with pytest.raises(Fenced):
            self._as_if_nothing_had_been(zombie, begun=writer.zombie_begun)
        self.seen.append("fenced")

    def _as_if_nothing_had_been(self, zombie: Producer, *, begun: bool) -> None:
        if not begun:
            zombie.begin()
        zombie.produce(batch(self._sink, b"from the dead", keys=[None], partitions=[0]))
        zombie.flush()
        zombie.commit()


def played(broker: Broker, seeds: range) -> list[list[object]]:
    told = []
    for seed in seeds:
        with Lab(broker) as lab:
            told.append(Player(lab).play(script(seed)))
    return told


@pytest.fixture
def simulated(tmp_path: Path) -> Callable[[], Broker]:
    return lambda: SimulatedBroker(tmp_path, VirtualClock(1_767_225_600_000), lambda *_: None).of("test")


@pytest.mark.parametrize("first", range(0, TRACES, TOGETHER))
def test_a_script_shows_the_same_on_the_simulator_and_on_kafka(
    first: int, simulated: Callable[[], Broker], kafka_bootstrap: str
) -> None:
    seeds = range(first, first + TOGETHER)
    assert played(simulated(), seeds) == played(KafkaBroker(kafka_bootstrap), seeds)


def test_the_scripts_have_every_kind_of_step() -> None:
    kinds = [step.kind for seed in range(TRACES) for step in script(seed)]
    assert all(kinds.count(kind) >= 20 for kind in ("produce", "offsets", "commit", "abort", "replace", "zombie"))
