"""Dead letters as people look at them: the original record and what went wrong with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from streampipe.brokers.port import Admin, Broker
from streampipe.errors import NotFound, UnknownTopic
from streampipe.observe.reading import read_between
from streampipe.operators.effects import HEADER
from streampipe.records import Headers, RecordBatch, TopicPartition

SUFFIX = "-dlq"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record of a dead letter topic. `errors` holds its error headers without their prefix."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    errors: Mapping[str, str] = field(default_factory=dict)
    headers: Headers = ()
    """The headers that the record had before it failed."""


def dead_letter_topic(admin: Admin, name: str) -> str:
    """The dead letter topic of a processor, or the topic of that name itself. Raises NotFound."""
    topics = admin.topics()
    for topic in (f"{name}{SUFFIX}", name):
        if topic in topics:
            return topic
    missing = name if name.endswith(SUFFIX) else f"{name}{SUFFIX}"
    raise NotFound(f"topic {missing!r} does not exist; check the name: a processor makes its topic at its first run")


def list_dead_letters(
    broker: Broker, admin: Admin, topic: str, failure_class: str | None = None, limit: int = 50
) -> list[DeadLetter]:
    """The newest dead letters of each partition, `limit` in all at most, by partition and offset."""
    count = admin.topics().get(topic)
    if count is None:
        raise UnknownTopic(topic)
    partitions = [TopicPartition(topic, p) for p in range(count)]
    starts, ends = admin.offsets(partitions, "earliest"), admin.offsets(partitions, "latest")
    if failure_class is None:  # nothing is looked for, so the tail is enough; offsets may have gaps, so twice of it
        starts = {p: max(starts[p], ends[p] - 2 * limit) for p in partitions}
    newest: dict[int, deque[DeadLetter]] = {p: deque(maxlen=limit) for p in range(count)}
    for batch in read_between(broker, starts, ends):
        for letter in letters_of(batch):
            if failure_class in (None, letter.errors.get("class")):
                newest[letter.partition].append(letter)
    return [letter for letters in _shared(list(newest.values()), limit) for letter in letters]


def _shared(newest: list[deque[DeadLetter]], limit: int) -> list[list[DeadLetter]]:
    """The ends of the queues, `limit` letters in all at most, shared evenly; what one leaves the others get."""
    ends: list[list[DeadLetter]] = [[] for _ in newest]
    left = limit
    for waiting, n in enumerate(sorted(range(len(newest)), key=lambda n: len(newest[n]))):
        share = -(-left // (len(newest) - waiting))
        ends[n] = list(newest[n])[-share:] if share else []
        left -= len(ends[n])
    return ends


def one_dead_letter(broker: Broker, admin: Admin, at: TopicPartition, offset: int) -> DeadLetter:
    """The record at an offset. Raises NotFound when there is none, UnknownTopic."""
    count = admin.topics().get(at.topic)
    if count is None:
        raise UnknownTopic(at.topic)
    missing = NotFound(f"{at} has no record at offset {offset}")
    if at.partition >= count or not admin.offsets([at], "earliest")[at] <= offset < admin.offsets([at], "latest")[at]:
        raise missing
    for batch in read_between(broker, {at: offset}, {at: offset + 1}, 1):
        return next(letters_of(batch))
    raise missing


def letters_of(batch: RecordBatch) -> Iterator[DeadLetter]:
    """The dead letters of a batch."""
    for row, offset in enumerate(batch.offsets.tolist()):
        errors: dict[str, str] = {}
        others: list[tuple[str, bytes | None]] = []
        for name, value in batch.headers(row):
            if name.startswith(HEADER):
                errors[name.removeprefix(HEADER)] = (value or b"").decode(errors="backslashreplace")
            else:
                others.append((name, value))
        yield DeadLetter(
            batch.topic, int(batch.partitions[row]), offset, int(batch.timestamps[row]),
            batch.keys[row], batch.values[row], errors, others,
        )  # fmt: skip
