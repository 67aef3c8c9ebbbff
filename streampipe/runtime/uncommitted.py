"""What a worker did since its last commit, for its observer and for messages. Columns only, nothing a record."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

from streampipe.records import NO_TIMESTAMP, IntArray, RecordBatch, TopicPartition
from streampipe.runtime.port import TaskOutput


class Uncommitted:
    """Records processed and produced since the last commit."""

    def __init__(self) -> None:
        self.records = 0
        self.first: dict[TopicPartition, tuple[int, int]] = {}
        """Offset and timestamp of the first record, by partition."""
        self.produced: Counter[str] = Counter()
        self._counts = TaskOutput()
        self._timestamps: dict[str, list[IntArray]] = defaultdict(list)

    def __bool__(self) -> bool:
        return bool(self.records or self.produced)

    def processed(self, batch: RecordBatch) -> None:
        """A batch went through the task."""
        self.records += len(batch)
        self._timestamps[batch.topic].append(batch.timestamps)
        numbers, rows = np.unique(batch.partitions, return_index=True)
        for number, row in zip(numbers.tolist(), rows.tolist(), strict=True):
            at = int(batch.offsets[row]), int(batch.timestamps[row])
            self.first.setdefault(TopicPartition(batch.topic, number), at)

    def gave(self, output: TaskOutput) -> None:
        """The task gave output; its batches are counted and let go."""
        for batch in (*output.records, *output.changelog, *output.dead_letters):
            self.produced[batch.topic] += len(batch)
        self._counts.offsets.update(output.offsets)
        for topic, counts in output.outcomes.items():
            before = self._counts.outcomes.get(topic)
            self._counts.outcomes[topic] = counts if before is None else before + counts
        self._counts.failures.update(output.failures)
        self._counts.late_drops.update(output.late_drops)
        self._counts.invalid_drops.update(output.invalid_drops)

    def counts(self, offsets: Mapping[TopicPartition, int]) -> TaskOutput:
        """The counters of everything given, and the offsets that were committed; no batches."""
        self._counts.offsets.update(offsets)
        return self._counts

    def latencies_s(self, now_ms: int) -> dict[str, np.ndarray]:
        """Seconds from each record's timestamp to `now_ms`, by topic; records without timestamp are left out."""
        columns = {topic: np.concatenate(parts) for topic, parts in self._timestamps.items()}
        return {topic: (now_ms - column[column != NO_TIMESTAMP]) / 1000.0 for topic, column in columns.items()}

    def oldest(self, owned: set[TopicPartition]) -> dict[TopicPartition, int | None]:
        """Timestamp of the first record of each owned partition; None where there is none."""
        stamps = {tp: self.first[tp][1] if tp in self.first else NO_TIMESTAMP for tp in owned}
        return {tp: None if stamp == NO_TIMESTAMP else stamp for tp, stamp in stamps.items()}

    def ranges(self, upto: Mapping[TopicPartition, int]) -> str:
        """The offsets in question, for people: flights[0] 17..21."""
        spans = [f"{tp} {first}..{upto.get(tp, first + 1) - 1}" for tp, (first, _) in sorted(self.first.items())]
        return ", ".join(spans) or "no record"
