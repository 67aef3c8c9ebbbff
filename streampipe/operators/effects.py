"""What operators do to the outside: records, changelog, dead letters and counts, collected until the task is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from streampipe.operators.frame import Frame
from streampipe.records import NO_TIMESTAMP, Headers, IntArray, ProduceBatch, Record

FILTERED, DROPPED, OK, DEAD = range(4)
"""Fates of a consumed record, weakest first; the order of `runtime.port.OUTCOMES`."""

HEADER = "__streampipe.errors."
"""Prefix of the headers that say why a record became a dead letter."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a record is a dead letter. `details` become further headers (rule, window, schema.id, …)."""

    failure_class: str
    exception: str
    message: str
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Part:
    """Encoded rows of one sink, before rows of several sinks of one topic are put into order."""

    topic: str
    frame: Frame
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]


@dataclass(slots=True)
class Effects:
    """Collected effects of one task."""

    processor: str
    dead_letter_topic: str
    records: list[ProduceBatch] = field(default_factory=list)
    parts: list[_Part] = field(default_factory=list)
    changelog: list[ProduceBatch] = field(default_factory=list)
    dead: list[tuple[Record, Headers]] = field(default_factory=list)
    failures: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    late_drops: Counter[str] = field(default_factory=Counter)
    invalid_drops: Counter[str] = field(default_factory=Counter)
    now_ms: int | None = None
    """Wall clock as the task was told with this batch; None in a replay."""

    def produce(self, topic: str, frame: Frame, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
        """Write rows of a frame to a topic; their records are ok."""
        frame.origin.mark(frame.rows, OK)
        self.parts.append(_Part(topic, frame, keys, values))

    def settle(self) -> None:
        """A batch is through: what several sinks wrote to one topic goes into the order of the batch's records."""
        parts, self.parts = self.parts, []
        together: dict[tuple[str, int], list[_Part]] = {}
        for part in parts:
            together.setdefault((part.topic, id(part.frame.origin)), []).append(part)
        self.records += [_in_order(group) for group in together.values()]

    def dead_letters(self, frame: Frame, positions: IntArray, stage: str, reason: Callable[[int], Reason]) -> None:
        """Rows of a frame become dead letters; `reason(position)` says why for each.

        A record is a dead letter once, however many of its rows fail and wherever else: the first reason counts.
        """
        indexes, firsts = np.unique(frame.indexes[positions], return_index=True)
        fresh = frame.origin.fates[indexes] != DEAD
        indexes, positions = indexes[fresh], positions[firsts[fresh]]
        for position, row in zip(positions.tolist(), indexes.tolist(), strict=True):
            record, bad_headers = frame.origin.record(row, frame.columns, position)
            self._dead_letter(record, stage, reason(position), bad_headers)
        frame.origin.mark(indexes, DEAD)

    def _dead_letter(self, record: Record, stage: str, why: Reason, bad_headers: bool) -> None:
        details = {
            "topic": record.topic,
            "partition": str(record.partition),
            "offset": str(record.offset),
            "timestamp": str(record.timestamp),
            "processor": self.processor,
            "stage": stage,
            "class": why.failure_class,
            "exception": why.exception,
            "message": why.message,
            "attempt": "1",
            **why.details,
        }
        if bad_headers:
            details["headers"] = "left out: a header name is not UTF-8"
        text = tuple((HEADER + name, value.encode()) for name, value in details.items())
        self.dead.append((record, (*record.headers, *text)))
        self.failures[record.topic, stage, why.failure_class] += 1

    def take_dead_letters(self) -> list[ProduceBatch]:
        """The dead letters so far as one batch, or none."""
        dead, self.dead = self.dead, []
        if not dead:
            return []
        return [
            ProduceBatch(
                self.dead_letter_topic,
                [r.key for r, _ in dead],
                [r.value for r, _ in dead],
                [max(r.timestamp, NO_TIMESTAMP) for r, _ in dead],
                None,
                [headers for _, headers in dead],
            )
        ]


def _in_order(parts: list[_Part]) -> ProduceBatch:
    if len(parts) == 1:
        return ProduceBatch(parts[0].topic, parts[0].keys, parts[0].values, parts[0].frame.timestamps.tolist())
    times = [t for p in parts for t in p.frame.timestamps.tolist()]
    order = np.argsort(np.concatenate([p.frame.indexes for p in parts]), kind="stable").tolist()
    keys = [k for p in parts for k in p.keys]
    values = [v for p in parts for v in p.values]
    return ProduceBatch(parts[0].topic, [keys[i] for i in order], [values[i] for i in order], [times[i] for i in order])


class Step:
    """A running node: takes frames, hands frames on. `children` are the steps behind it."""

    def __init__(self, name: str, effects: Effects) -> None:
        self.name = name
        self.effects = effects
        self.children: list[Step] = []

    def process(self, frame: Frame) -> None:
        """Process a frame that is not empty."""
        raise NotImplementedError

    def emit(self, frame: Frame) -> None:
        """Hand a frame to every step behind this one."""
        if len(frame):
            for child in self.children:
                child.process(frame)


class Collected(Step):
    """Keeps what it is handed, for somebody who looks."""

    def __init__(self, effects: Effects) -> None:
        super().__init__("collected", effects)
        self.frames: list[Frame] = []

    def process(self, frame: Frame) -> None:
        """Keep a frame."""
        self.frames.append(frame)


def positions(rows: Iterable[int]) -> IntArray:
    """Row positions as a column."""
    return np.fromiter(rows, np.int64)
