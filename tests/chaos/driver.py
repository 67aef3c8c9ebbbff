"""One run: feed a processor, kill its workers, let it finish, and gather the evidence.

A larger tier is a matter of the scenario's numbers. The same seed gives the same records and the same plan of kills
(which slot, after how long); what exactly they hit, and who stands in for a slot without input, is up to the machine.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from streampipe.brokers.local import LocalBroker
from streampipe.errors import UnknownSchema
from streampipe.observe.state import StateReader
from tests.chaos.evidence import Evidence, Kill, Logs, Observer, partitions_of, read, schema_ids
from tests.chaos.feeder import Feeder
from tests.chaos.nemesis import Nemesis
from tests.chaos.place import Place, Scenario, open_place
from tests.chaos.processor import EVENT, STORES, build
from tests.chaos.traffic import Traffic
from tests.chaos.watch import Watch
from tests.chaos.workers import Workers


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
        watch = Watch(place.broker, place.topics.name, partitions_of(place.admin, [place.topics.input]))
        stack.callback(watch.stop)
        feeder = Feeder(place.broker, place.topics.input, records, per_second)
        stack.callback(feeder.stop)
        observer.start()
        watch.start()
        feeder.start()
        workers.start_all()
        nemesis = Nemesis(scenario, place, workers, feeder)
        kills = nemesis.run()
        feeder.finish()
        watch.stop()
        workers.stop_all(40)
        held = finish(place, workers, scenario.finish_within_s)
        evidence = gather(place, observer, kills, workers)
        others = nemesis.disturbances
        return replace(
            evidence, reached=nemesis.reached, missed=nemesis.missed, points=nemesis.points, stalls=watch.stalls,
            held=held,
            disturbances=others.done, planned=others.planned, wiped=others.wiped, restarts_s=others.restarts_s,
        )  # fmt: skip


def finish(place: Place, workers: Workers, within_s: float) -> dict[str, list[dict[str, Any]]]:
    """Consume all, and close all windows; what each store held before that, as a worker would restore it."""
    workers.catch_up(within_s)
    topology, schemas = build(place.topics.name).topology, place.environment["STREAMPIPE_SCHEMAS"]
    reader = StateReader(topology, place.broker, place.registry, schemas)
    held = {name: [row["columns"] for row in reader.rows(place.admin, name, lambda *_: None)] for name in STORES}
    workers.close_windows(within_s)
    return held


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
