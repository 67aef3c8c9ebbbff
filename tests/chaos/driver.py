"""One run: feed a processor, kill its workers at random moments, let it finish, and gather the evidence.

A larger tier is a matter of the scenario's numbers. The same seed gives the same records and the same kills (which
slot, after how long); what the kills hit is up to the machine.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import uuid4

from streampipe.brokers.local import LocalBroker
from streampipe.brokers.opening import open_broker
from streampipe.brokers.port import Admin, Broker
from streampipe.errors import UnknownSchema
from streampipe.records import ProduceBatch
from streampipe.runtime.plan import TaskBuilder
from streampipe.runtime.topics import prepare_topics
from streampipe.schemas.port import Registry
from streampipe.schemas.registry import open_registry
from tests.chaos.evidence import Evidence, Kill, Logs, Observer, partitions_of, read, schema_ids
from tests.chaos.processor import EVENT, Topics, build
from tests.chaos.traffic import Fed, Traffic
from tests.chaos.workers import Workers

CHUNK = 20
KILL_ALL = 0.15
SETTINGS = {
    "STREAMPIPE_COMMIT_INTERVAL_MS": "150",
    "STREAMPIPE_KAFKA_SESSION_TIMEOUT_MS": "3000",
    "STREAMPIPE_KAFKA_HEARTBEAT_INTERVAL_MS": "500",
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """How much, how often, and where. `pace_s`: seconds that records are fed for each kill, about."""

    broker: str
    folder: Path
    records: int
    kills: int
    seed: int
    partitions: int = 4
    slots: int = 2
    pace_s: float = 2.5
    finish_within_s: float = 90.0


@dataclass(frozen=True, slots=True)
class Place:
    """The clients and topics of one run. Everything here is of one thread but the broker itself."""

    broker: Broker
    admin: Admin
    registry: Registry
    topics: Topics
    environment: dict[str, str]

    def committed(self) -> int:
        """Input records that the group has committed."""
        return sum(at for tp, at in self.admin.committed(self.topics.name).items() if tp.topic == self.topics.input)


class Feeder(threading.Thread):
    """Produces records at a rate, but never beyond what `allow` has allowed, so that work is left for every kill."""

    def __init__(self, broker: Broker, topic: str, records: Iterator[Fed], per_second: float) -> None:
        super().__init__(name="feeder", daemon=True)
        self._broker, self._topic, self._records = broker, topic, records
        self._pause_s = CHUNK / per_second
        self._allowed = 0
        self._hurry = self._stop_now = False
        self._failed: Exception | None = None
        self.fed = 0

    def allow(self, records: int) -> None:
        """So many in all may be fed now."""
        self._allowed = records

    def run(self) -> None:
        """Until all is fed."""
        try:
            producer = self._broker.producer()
            try:
                while not self._stop_now and (chunk := list(islice(self._records, self._size()))):
                    columns = [list(column) for column in zip(*chunk, strict=True)]
                    keys, values, timestamps, headers = columns
                    producer.produce(ProduceBatch(self._topic, keys, values, timestamps, None, headers))
                    self.fed += len(chunk)
                    while not self._hurry and (self.fed >= self._allowed or not self._slept()):
                        time.sleep(0.02)
                producer.flush()
            finally:
                producer.close()
        except Exception as error:  # noqa: BLE001 - told to the thread that asks
            self._failed = error

    def _size(self) -> int:
        return 1_000 if self._hurry else CHUNK

    def _slept(self) -> bool:
        time.sleep(self._pause_s)
        return True

    def finish(self) -> None:
        """Feed the rest at once, and wait for that."""
        self._hurry = True
        self.join(120)
        if self._failed is not None:
            raise self._failed

    def stop(self) -> None:
        """Feed nothing more."""
        self._hurry = self._stop_now = True
        self.join(10)


def open_place(scenario: Scenario, stack: ExitStack) -> Place:
    """Topics and schemas of a new processor."""
    topics = Topics(f"chaos-{uuid4().hex[:8]}")
    address = f"local:{scenario.folder / 'registry.db'}"
    broker = open_broker(scenario.broker)
    admin = stack.enter_context(closing(broker.admin()))
    registry = stack.enter_context(closing(open_registry(address)))
    admin.create_topic(topics.input, scenario.partitions)
    topology = build(topics.name).topology
    TaskBuilder(topology, registry, str(scenario.folder / "schemas"), sleep=time.sleep).build()
    prepare_topics(topology, admin, create=True)
    environment = {
        "CHAOS_PROCESSOR": topics.name,
        "STREAMPIPE_BROKER": scenario.broker,
        "STREAMPIPE_REGISTRY": address,
        "STREAMPIPE_SCHEMAS": str(scenario.folder / "schemas"),
        **SETTINGS,
    }
    return Place(broker, admin, registry, topics, environment)


def run(scenario: Scenario) -> Evidence:
    """Run the scenario. Raises AssertionError when nothing moves for a minute."""
    with ExitStack() as stack:
        place = open_place(scenario, stack)
        schema_id = place.registry.register(f"{place.topics.input}-value", EVENT)
        records = iter(Traffic(scenario.seed, scenario.records, scenario.partitions, schema_id))
        per_second = scenario.records / (scenario.pace_s * max(1, scenario.kills))
        workers = Workers(scenario.slots, scenario.folder, place.environment)
        stack.callback(workers.close)
        observer = Observer(place.broker, place.admin, place.topics.written)
        stack.callback(observer.stop)
        feeder = Feeder(place.broker, place.topics.input, records, per_second)
        stack.callback(feeder.stop)
        observer.start()
        feeder.start()
        workers.start_all()
        kills = _kill_loop(scenario, place, workers, feeder)
        feeder.finish()
        workers.stop_all(40)
        workers.finish(scenario.finish_within_s)
        return gather(place, observer, kills, workers)


def _kill_loop(scenario: Scenario, place: Place, workers: Workers, feeder: Feeder) -> list[Kill]:
    """Kill one worker, now and then all, at a random moment after the group made progress since the last time."""
    chance, kills = random.Random(f"{scenario.seed}-nemesis"), list[Kill]()
    every = list(range(scenario.slots))
    while len(kills) < scenario.kills:
        feeder.allow(scenario.records * (len(kills) + 1) // (scenario.kills + 1))
        before = kills[-1].committed if kills else 0
        await_true(lambda before=before: place.committed() > before, f"progress after kill {len(kills)}", workers)  # type: ignore[misc] # a default
        time.sleep(chance.uniform(0.0, 0.6 * scenario.pace_s))
        slots = every if chance.random() < KILL_ALL else [chance.choice(every)]
        for slot in slots:
            workers.kill(slot)
            kills.append(Kill(slot, place.committed(), feeder.fed, scenario.records))
        for slot in slots:
            workers.start(slot)
    return kills


def await_true(condition: Callable[[], bool], what: str, workers: Workers, within_s: float = 60.0) -> None:
    """Wait for a condition; fails with the workers' last words."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {within_s:.0f} s\n{workers.logs()}"
        time.sleep(0.05)


def gather(place: Place, observer: Observer | None, kills: list[Kill], workers: Workers) -> Evidence:
    """Read everything again."""
    topics, admin, broker = place.topics, place.admin, place.broker
    partitions = partitions_of(admin, [topics.input, *topics.written])
    stable = admin.offsets(partitions, "latest")
    observed = observer.finish(stable) if observer is not None else {}
    logs = read(broker, admin, [topics.input, *topics.written])
    schemas = {}
    for schema_id in schema_ids(record for log in logs.values() for record in log):
        try:
            schemas[schema_id] = place.registry.by_id(schema_id)
        except UnknownSchema:
            continue  # one of the poisoned records
    return Evidence(
        topics=topics,
        logs=logs,
        observed=observed or {topic: logs[topic] for topic in topics.written},
        schemas=schemas,
        committed=admin.committed(topics.name),
        ends=admin.offsets(partitions, "latest", "read_uncommitted"),
        stable_ends=stable,
        aborted=_aborted(place, logs),
        kills=kills,
        unexpected=workers.unexpected,
    )


def _aborted(place: Place, logs: Logs) -> int:
    """Records of aborted transactions: seen uncommitted on Kafka, gaps in the embedded log, which deletes them."""
    written, admin = place.topics.written, place.admin
    clean = sum(len(logs[topic]) for topic in written)
    if isinstance(place.broker, LocalBroker):
        return sum(admin.offsets(partitions_of(admin, written), "latest", "read_uncommitted").values()) - clean
    dirty = read(place.broker, admin, written, "read_uncommitted")
    return sum(map(len, dirty.values())) - clean
