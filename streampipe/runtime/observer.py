"""The observer of a worker that nobody watches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from streampipe.records import TopicPartition
from streampipe.runtime.port import State, TaskOutput


class NullObserver:
    """Hears everything and keeps nothing; also a base for observers that care about a few calls only."""

    def state(self, state: State) -> None:
        """Ignored."""

    def polled(self, records: int, idle_s: float) -> None:
        """Ignored."""

    def consumed(self, topic: str, records: int, value_bytes: int) -> None:
        """Ignored."""

    def processed(self, stage: str, records: int, seconds: float) -> None:
        """Ignored."""

    def committed(
        self,
        result: Literal["ok", "rebalance", "fenced", "error"],
        seconds: float,
        output: TaskOutput | None,
        latencies_s: dict[str, np.ndarray] | None,
    ) -> None:
        """Ignored."""

    def produced(self, topic: str, records: int) -> None:
        """Ignored."""

    def rebalanced(
        self, kind: Literal["assigned", "revoked", "lost"], partitions: Sequence[TopicPartition], seconds: float
    ) -> None:
        """Ignored."""

    def restoring(self, store: str, restored: int, remaining: int, seconds: float) -> None:
        """Ignored."""

    def standing_by(self, partitions: int, behind: int) -> None:
        """Ignored."""

    def broker_reachable(self, reachable: bool) -> None:
        """Ignored."""

    def oldest_unprocessed(self, timestamps: dict[TopicPartition, int | None]) -> None:
        """Ignored."""
