"""Creates the demo's topics and loads them: `python -m demo.load` does it where STREAMPIPE_BROKER points.

A broker that holds flights already is left as it is, so it may run again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing

import polars as pl
import polars.selectors as cs
from rich.console import Console

from demo.broken import broken_bytes, rule_breakers
from demo.dataset import DATA, KEYS, SCHEMAS, read
from demo.place import Place
from streampipe import config
from streampipe.brokers.port import Admin, Broker
from streampipe.errors import StreampipeError
from streampipe.records import ProduceBatch, Record, TopicPartition, records_of

PARTITIONS = 4
OUTPUTS = ("flights-enriched", "delays-hourly", "delay-alerts")
Progress = Callable[[str], None]


def load(place: Place, progress: Progress) -> int:
    """Create and fill the topics; the number of records now in `flights`, broken ones included."""
    place.wait({f"{topic}-value": (SCHEMAS / f"{topic}.avsc").read_text() for topic in KEYS})
    broker = place.open()
    with closing(broker.admin()) as admin:
        if "flights" in admin.topics() and (there := size(admin, "flights")):
            progress(f"flights holds {there:,} records already: nothing loaded")
            return there
        create_topics(admin)
        for topic in KEYS:
            if topic != "flights":
                progress(produce_file(place, topic))
        load_flights(place, broker)
        loaded = size(admin, "flights")
    progress(f"flights: {loaded:,} records, {loaded - read('flights').height} of them broken or late")
    return loaded


def create_topics(admin: Admin) -> None:
    """Tables are compacted. Outputs carry event times of 2013, which a retention by time would delete at once."""
    for topic in KEYS:
        config = {} if topic == "flights" else {"cleanup.policy": "compact"}
        admin.create_topic(topic, PARTITIONS, config)
    for topic in OUTPUTS:
        admin.create_topic(topic, PARTITIONS, {"retention.ms": "-1"})


def load_flights(place: Place, broker: Broker) -> None:
    """Half of the flights, what is broken, the other half, and one record that is a month late."""
    flights = read("flights")
    half = flights.height // 2
    first = flights.head(1)
    produce(place, "flights", flights.head(half))
    breakers = rule_breakers(first.row(0, named=True))
    produce(place, "flights", pl.DataFrame(list(breakers.values()), schema=first.schema))
    good = first_record(broker, "flights", key=b"EWR")
    values = [broken.value for broken in broken_bytes(good.value or b"")]
    with closing(broker.producer()) as producer:
        producer.produce(ProduceBatch("flights", [good.key] * len(values), values))
        producer.flush()
    produce(place, "flights", flights.tail(-half))
    produce(place, "flights", first)


def produce_file(place: Place, topic: str) -> str:
    """Produce a shipped file as it is; what the command said about it."""
    said = json.loads(place.streampipe(*_produce(topic), "--json", str(DATA / f"{topic}.csv.gz")))
    return f"{topic}: {said['records']:,} records"


def produce(place: Place, topic: str, frame: pl.DataFrame) -> None:
    """Produce a frame's rows, times as milliseconds."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        frame.with_columns(cs.datetime().dt.epoch("ms")).write_ndjson(file)
        file.flush()
        place.streampipe(*_produce(topic), file.name)


def _produce(topic: str) -> tuple[str, ...]:
    return ("produce", topic, "--schema", str(SCHEMAS / f"{topic}.avsc"), "--key", ",".join(KEYS[topic]))


def first_record(broker: Broker, topic: str, key: bytes) -> Record:
    """The first record of this key that a reader finds."""
    starts = {TopicPartition(topic, n): 0 for n in range(PARTITIONS)}
    with closing(broker.reader(starts)) as reader:
        while batches := reader.poll(1_000, timeout_s=10):
            for record in (record for batch in batches for record in records_of(batch)):
                if record.key == key:
                    return record
    raise StreampipeError(f"topic {topic!r} holds no record with key {key!r}")


def size(admin: Admin, topic: str) -> int:
    """Records of a topic that is neither compacted nor written in transactions."""
    partitions = [TopicPartition(topic, n) for n in range(admin.describe_topic(topic).partitions)]
    ends, starts = (sum(admin.offsets(partitions, at).values()) for at in ("latest", "earliest"))
    return ends - starts


def main() -> int:
    """Load where the settings point; an exit code."""
    settings = config.load()
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        load(Place(settings.broker, settings.registry), notes.print)
    except StreampipeError as error:
        notes.print(f"error: {error}", markup=False)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
