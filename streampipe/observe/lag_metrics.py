"""A worker's own partitions' lag as metrics, read in the background and never inside a scrape."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from threading import Event, Thread

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streampipe.brokers.port import Broker
from streampipe.errors import NotFound, StreampipeError, Unavailable
from streampipe.observe.lag import LagReader, PartitionLag
from streampipe.records import TopicPartition

log = logging.getLogger(__name__)

AGAIN_S = 2.0
"""Seconds until the next try where there is no answer yet, at most."""
BY_PARTITION = ("group", "topic", "partition")


class LagMonitor(Collector):
    """Reads the group's lag every `interval_s` on a thread and exports that of the partitions `owned` here.

    Lag in seconds grows between two reads, since it is worked out when scraped from the oldest record's timestamp.
    An unknown lag has no series. The lags of partitions that went to somebody else are exported there. `reachable`
    is told after each read whether the broker answered.
    """

    def __init__(
        self,
        broker: Broker,
        group: str,
        owned: Callable[[], Collection[TopicPartition]],
        interval_s: float = 10.0,
        wall_s: Callable[[], float] = time.time,
        reachable: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._broker, self._group, self._owned, self._interval_s = broker, group, owned, interval_s
        self._wall_s, self._reachable = wall_s, reachable
        self._lags: list[PartitionLag] = []
        self._last_success: float | None = None
        self._errors = 0
        self._stop = Event()
        self._thread = Thread(target=self._run, name="lag", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading; returns at once or when the read under way is over."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=15)

    def lags(self) -> list[PartitionLag]:
        """What was read last, of the owned partitions."""
        owned = set(self._owned())
        return [lag for lag in self._lags if TopicPartition(lag.topic, lag.partition) in owned]

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not read."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families, from the last read."""
        records = GaugeMetricFamily("streampipe_consumer_lag_records", "Records not yet committed.", None, BY_PARTITION)
        seconds = GaugeMetricFamily(
            "streampipe_consumer_lag_seconds", "Age of the oldest record not yet committed.", None, BY_PARTITION
        )
        now_ms = self._wall_s() * 1000
        for lag in self.lags():
            labels = (self._group, lag.topic, str(lag.partition))
            if lag.records is not None:
                records.add_metric(labels, lag.records)
            if lag.oldest_ms is not None:
                seconds.add_metric(labels, max(0.0, (now_ms - lag.oldest_ms) / 1000))
            elif lag.seconds is not None:
                seconds.add_metric(labels, lag.seconds)
        yield records
        yield seconds
        errors = CounterMetricFamily("streampipe_exporter_errors", "Failed reads of the lag.")
        errors.add_metric((), self._errors)
        yield errors
        if self._last_success is not None:
            yield GaugeMetricFamily(
                "streampipe_exporter_last_success_timestamp_seconds", "When the lag was last read.", self._last_success
            )

    def _run(self) -> None:
        reader: LagReader | None = None
        wait_s = min(AGAIN_S, self._interval_s)  # a worker that just started has committed nothing yet
        while not self._stop.wait(wait_s):
            wait_s = self._interval_s
            try:
                reader = reader or LagReader(self._broker)
                self._lags = reader.group(self._group, ask_members=False)
                self._last_success = self._wall_s()
                self._reachable(True)
            except NotFound:  # nothing was committed yet
                self._lags = []
                self._reachable(True)
            except StreampipeError as error:
                self._reachable(not isinstance(error, Unavailable))
                wait_s = min(AGAIN_S, self._interval_s)
                if reader is not None:  # a client that saw its broker go may not find it again
                    reader.close()
                    reader = None
                self._errors += 1
                log.debug("lag of %s could not be read: %s", self._group, error)
        if reader is not None:
            reader.close()
