"""What workers did so far, small enough to hand from one process to another and to add up."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import orjson

from streampipe.observe.histogram import quantile
from streampipe.runtime.port import OUTCOMES


@dataclass(slots=True)
class Snapshot:
    """Totals of one worker or of several.

    `outcomes`: records by input topic, in the order of OUTCOMES. `latencies`: counts of the end-to-end latency by
    bucket, `bounds` their upper bounds in seconds. Work began at `first_s` and was last committed at `last_s`
    (seconds since the epoch). `lag_*` is unknown when None.
    """

    state: str = "starting"
    outcomes: dict[str, list[int]] = field(default_factory=dict)
    bounds: list[float] = field(default_factory=list)
    latencies: list[int] = field(default_factory=list)
    first_s: float | None = None
    last_s: float | None = None
    lag_records: int | None = None
    lag_seconds: float | None = None

    def records(self, topics: Collection[str] | None = None) -> int:
        """Records that met their fate, of all topics or of these."""
        return sum(sum(counts) for topic, counts in self.outcomes.items() if topics is None or topic in topics)

    def by_outcome(self) -> dict[str, int]:
        """Records of all topics by fate, the usual ones first."""
        totals = np.sum(list(self.outcomes.values()), axis=0) if self.outcomes else np.zeros(len(OUTCOMES), np.int64)
        counts = dict(zip(OUTCOMES, totals.tolist(), strict=True))
        return {outcome: counts[outcome] for outcome in ("ok", "filtered", "dlq", "dropped")}

    def rate(self, topics: Collection[str] | None = None) -> float | None:
        """Records a second from the first record to the last commit."""
        if self.first_s is None or self.last_s is None or self.last_s <= self.first_s:
            return None
        return self.records(topics) / (self.last_s - self.first_s)

    def p95_s(self) -> float | None:
        """End-to-end latency that 95 % of the records did not exceed, off by the width of a bucket at most.

        Infinite when it is beyond the last bucket, as it is for records of long ago.
        """
        if not self.latencies:
            return None
        estimate = quantile(np.array(self.bounds), np.array(self.latencies, np.int64), 0.95)
        return math.inf if estimate == self.bounds[-1] else estimate

    def __add__(self, other: Snapshot) -> Snapshot:
        outcomes = dict(self.outcomes)
        for topic, counts in other.outcomes.items():
            mine = outcomes.get(topic, [0] * len(OUTCOMES))
            outcomes[topic] = [a + b for a, b in zip(mine, counts, strict=True)]
        latencies = self.latencies or other.latencies
        if self.latencies and other.latencies:
            latencies = [a + b for a, b in zip(self.latencies, other.latencies, strict=True)]
        return Snapshot(
            # The one that is not yet running is what people wait for.
            other.state if self.state == "running" else self.state,
            outcomes,
            self.bounds or other.bounds,
            latencies,
            _known(min, self.first_s, other.first_s),
            _known(max, self.last_s, other.last_s),
            None if self.lag_records is None or other.lag_records is None else self.lag_records + other.lag_records,
            None if self.lag_seconds is None or other.lag_seconds is None else max(self.lag_seconds, other.lag_seconds),
        )

    def write(self, path: Path) -> None:
        """Replace the file at once, so that a reader never sees half of it."""
        draft = path.with_suffix(".tmp")
        draft.write_bytes(orjson.dumps(asdict(self)))
        os.replace(draft, path)


def read_all(folder: Path) -> Snapshot:
    """The sum of what the workers wrote into a folder."""
    total: Snapshot | None = None
    for path in sorted(folder.glob("*.json")):
        one = Snapshot(**orjson.loads(path.read_bytes()))
        total = one if total is None else total + one
    return total or Snapshot()


def _known(choose: Callable[[float, float], float], a: float | None, b: float | None) -> float | None:
    return choose(a, b) if a is not None and b is not None else b if a is None else a
