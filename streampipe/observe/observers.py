"""Telling several observers of one worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from streampipe.records import TopicPartition
from streampipe.runtime.port import Observer, State, TaskOutput

CommitResult = Literal["ok", "rebalance", "fenced", "error"]
RebalanceKind = Literal["assigned", "revoked", "lost"]
Latencies = dict[str, np.ndarray]


class Several:
    """A `runtime.port.Observer` that tells others, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def state(self, state: State) -> None:
        """Passed on."""
        for observer in self._observers:
            observer.state(state)

    def polled(self, records: int, idle_s: float) -> None:
        """Passed on."""
        for observer in self._observers:
            observer.polled(records, idle_s)

    def consumed(self, topic: str, records: int, value_bytes: int) -> None:
        """Passed on."""
        for observer in self._observers:
            observer.consumed(topic, records, value_bytes)

    def processed(self, stage: str, records: int, seconds: float) -> None:
        """Passed on."""
        for observer in self._observers:
            observer.processed(stage, records, seconds)

    def committed(
        self, result: CommitResult, seconds: float, output: TaskOutput | None, latencies_s: Latencies | None
    ) -> None:
        """Passed on."""
        for observer in self._observers:
            observer.committed(result, seconds, output, latencies_s)

    def produced(self, topic: str, records: int) -> None:
        """Passed on."""
        for observer in self._observers:
            observer.produced(topic, records)

    def rebalanced(self, kind: RebalanceKind, partitions: Sequence[TopicPartition], seconds: float) -> None:
        """Passed on."""
        for observer in self._observers:
            observer.rebalanced(kind, partitions, seconds)

    def restoring(self, store: str, restored: int, remaining: int, seconds: float) -> None:
        """Passed on."""
        for observer in self._observers:
            observer.restoring(store, restored, remaining, seconds)

    def broker_reachable(self, reachable: bool) -> None:
        """Passed on."""
        for observer in self._observers:
            observer.broker_reachable(reachable)

    def oldest_unprocessed(self, timestamps: dict[TopicPartition, int | None]) -> None:
        """Passed on."""
        for observer in self._observers:
            observer.oldest_unprocessed(timestamps)
