"""A Prometheus histogram that is fed a column at a time: one call a batch, never one a record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

FloatArray = npt.NDArray[np.float64]
Labels = tuple[str, ...]


def geometric_bounds(first_s: float, count: int, targets_s: Sequence[float] = ()) -> FloatArray:
    """`count` bucket bounds in seconds from `first_s` on, each sqrt(2) times the last, and the targets exactly.

    A quantile read from such buckets is off by at most the factor sqrt(2), measured -0.6 to +7.8 % at P95. A target
    that is a bound makes "how many were within the target" exact.
    """
    return np.unique(np.concatenate([first_s * 2.0 ** (np.arange(count) / 2), np.asarray(targets_s, np.float64)]))


@dataclass(slots=True)
class Buckets:
    """Observations of one set of labels: how many in each bucket (the last one is +Inf) and their sum."""

    counts: npt.NDArray[np.int64]
    total: float = 0.0


class BatchHistogram(Collector):
    """Bucket counts by labels. Safe between the thread that records and the one that is scraped."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str], bounds: FloatArray) -> None:
        self.name, self.help_text, self.labels, self.bounds = name, help_text, tuple(labels), bounds
        self._series: dict[Labels, Buckets] = {}
        self._lock = Lock()

    def touch(self, labels: Labels) -> None:
        """Have this series exist, at zero."""
        with self._lock:
            self._of(labels)

    def record(self, labels: Labels, values: FloatArray) -> None:
        """Add a column of observations, none of them NaN."""
        counts = np.bincount(np.searchsorted(self.bounds, values, side="left"), minlength=len(self.bounds) + 1)
        with self._lock:
            series = self._of(labels)
            series.counts += counts
            series.total += float(values.sum())

    def quantile(self, q: float) -> float | None:
        """Estimate of the q-quantile over all series; None before the first observation."""
        return quantile(self.bounds, self.counts(), q)

    def counts(self) -> npt.NDArray[np.int64]:
        """Observations in each bucket over all series."""
        with self._lock:
            series = [s.counts for s in self._series.values()]
        return np.sum(series, axis=0, dtype=np.int64) if series else np.zeros(len(self.bounds) + 1, np.int64)

    def describe(self) -> list[Metric]:
        """The family without samples."""
        return [HistogramMetricFamily(self.name, self.help_text, labels=self.labels)]

    def collect(self) -> Iterator[Metric]:
        """The family as Prometheus wants it: cumulative counts."""
        family = HistogramMetricFamily(self.name, self.help_text, labels=self.labels)
        bounds = [*(str(bound) for bound in self.bounds.tolist()), "+Inf"]
        with self._lock:
            for labels, series in self._series.items():
                cumulative = np.cumsum(series.counts).tolist()
                family.add_metric(labels, list(zip(bounds, cumulative, strict=True)), series.total)
        yield family

    def _of(self, labels: Labels) -> Buckets:
        found = self._series.get(labels)
        if found is None:
            found = self._series[labels] = Buckets(np.zeros(len(self.bounds) + 1, np.int64))
        return found


def quantile(bounds: FloatArray, counts: npt.NDArray[np.int64], q: float) -> float | None:
    """What PromQL's histogram_quantile gives: linear within the bucket, the last bound for what lies beyond it."""
    cumulative = np.cumsum(counts)
    if not cumulative[-1]:
        return None
    rank = q * float(cumulative[-1])
    bucket = int(np.searchsorted(cumulative, rank, side="left"))
    if bucket >= len(bounds):
        return float(bounds[-1])
    low = float(bounds[bucket - 1]) if bucket else 0.0
    before = float(cumulative[bucket - 1]) if bucket else 0.0
    inside = float(counts[bucket])
    return low + (float(bounds[bucket]) - low) * ((rank - before) / inside if inside else 1.0)
