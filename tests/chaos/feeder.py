"""Feeds the input, no faster and no further than it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice

from streampipe.brokers.port import Broker
from streampipe.errors import Unavailable
from streampipe.records import ProduceBatch
from tests.chaos.traffic import Fed

CHUNK = 20
PATIENCE = 4
"""So many times what was not acknowledged is sent again, each time by another producer."""


class Feeder(threading.Thread):
    """Produces records at a rate, but never beyond what `allow` has allowed, so that work is left for every kill."""

    def __init__(self, broker: Broker, topic: str, records: Iterator[Fed], per_second: float) -> None:
        super().__init__(name="feeder", daemon=True)
        self._broker, self._topic, self._records = broker, topic, records
        self._pause_s = CHUNK / per_second
        self._allowed = 0
        self._hurry = self._stop_now = False
        self._failed: Exception | None = None
        self._unacknowledged: list[ProduceBatch] = []
        self.fed = 0
        """Records produced; all of them are acknowledged whenever no more are allowed."""

    def allow(self, records: int) -> None:
        """So many in all may be fed now."""
        self._allowed = records

    def run(self) -> None:
        """Until all is fed."""
        try:
            self._producer = self._broker.producer()
            try:
                while not self._stop_now and (chunk := list(islice(self._records, self._size()))):
                    columns = [list(column) for column in zip(*chunk, strict=True)]
                    keys, values, timestamps, headers = columns
                    batch = ProduceBatch(self._topic, keys, values, timestamps, None, headers)
                    self._unacknowledged.append(batch)
                    self._producer.produce(batch)
                    if self.fed + len(chunk) >= self._allowed:
                        self._acknowledged()
                    self.fed += len(chunk)
                    while not self._hurry and (self.fed >= self._allowed or not self._slept()):
                        time.sleep(0.02)
                self._acknowledged()
            finally:
                self._producer.close()
        except Exception as error:  # noqa: BLE001 - told to the thread that asks
            self._failed = error

    def _acknowledged(self) -> None:
        """Wait until everything is, if need be by sending it again: a client may lose its broker for ever."""
        for tries in range(PATIENCE, -1, -1):
            try:
                self._producer.flush()
            except Unavailable:
                if not tries:
                    raise
                self._producer.close()
                self._producer = self._broker.producer()
                for batch in self._unacknowledged:
                    self._producer.produce(batch)
            else:
                self._unacknowledged.clear()
                return

    def _size(self) -> int:
        return 1_000 if self._hurry else CHUNK

    def _slept(self) -> bool:
        time.sleep(self._pause_s)
        return True

    def finish(self) -> None:
        """Feed the rest at once, and wait for that."""
        self._hurry = True
        self.join(120)
        if self._failed is not None:
            raise self._failed

    def stop(self) -> None:
        """Feed nothing more."""
        self._hurry = self._stop_now = True
        self.join(10)
