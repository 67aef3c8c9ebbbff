"""Telling several observers of one worker."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Literal

import numpy as np

from streampipe.records import TopicPartition
from streampipe.runtime.port import Observer, State, TaskOutput

CommitResult = Literal["ok", "rebalance", "fenced", "error"]
RebalanceKind = Literal["assigned", "revoked", "lost"]
Latencies = dict[str, np.ndarray]


class Several:
    """A `runtime.port.Observer` that tells others, in order.

    They hear that broker and registry can be reached while nobody who asks says otherwise: an idle worker's client
    waits for a broker in silence, so who reads the lag is asked as well.
    """

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers
        self._lock = Lock()
        self._without_answer: set[str] = set()

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
        """Passed on; a commit is an answer of the broker."""
        if result == "ok" and "lag" in self._without_answer:
            self.lag_reachable(True)
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

    def standing_by(self, partitions: int, behind: int) -> None:
        """Passed on."""
        for observer in self._observers:
            observer.standing_by(partitions, behind)

    def broker_reachable(self, reachable: bool) -> None:
        """What the worker says."""
        self._heard("worker", reachable)

    def lag_reachable(self, reachable: bool) -> None:
        """What the reader of the lag says, on a thread of its own."""
        self._heard("lag", reachable)

    def _heard(self, who: str, reachable: bool) -> None:
        with self._lock:
            if reachable:
                self._without_answer.discard(who)
            else:
                self._without_answer.add(who)
            for observer in self._observers:
                observer.broker_reachable(not self._without_answer)

    def oldest_unprocessed(self, timestamps: dict[TopicPartition, int | None]) -> None:
        """Passed on."""
        for observer in self._observers:
            observer.oldest_unprocessed(timestamps)
