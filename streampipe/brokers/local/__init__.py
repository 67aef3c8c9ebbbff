"""The embedded broker: one SQLite file, several processes of one machine. For laptops, tests and demos."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from streampipe.brokers.local.admin import LocalAdmin
from streampipe.brokers.local.consumer import LocalConsumer
from streampipe.brokers.local.database import Database
from streampipe.brokers.local.heartbeat import Timeouts
from streampipe.brokers.local.producer import LocalProducer
from streampipe.brokers.local.reader import LocalReader
from streampipe.brokers.port import Isolation, Offsets
from streampipe.clock import Clock, SystemClock

__all__ = ["LocalBroker"]


class LocalBroker:
    """`Broker` in the SQLite file at `path`, made when it is missing, together with its folder.

    Raises ConfigError when the file cannot be used. Times in seconds: `session_timeout_s` after which a killed
    member's partitions go to others, `max_poll_interval_s` for a member that lives but does not poll, and
    `transaction_timeout_s` after which an open transaction is aborted. Kafka's defaults for the first two are
    45 s and 300 s; on one machine there is no network to be patient with.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        session_timeout_s: float = 6.0,
        max_poll_interval_s: float = 300.0,
        transaction_timeout_s: float = 15.0,
        clock: Clock | None = None,
        heartbeats: bool = True,
    ) -> None:
        """Without `heartbeats` there are no threads: a member lives by its polls, as on a clock that stands still."""
        self._path = Path(path)
        self._timeouts = Timeouts(session_timeout_s, max_poll_interval_s, transaction_timeout_s, heartbeats)
        self._clock: Clock = clock or SystemClock()
        self.name = f"local:{self._path}"
        self._open().close()

    def _open(self) -> Database:
        return Database(self._path)

    def consumer(
        self,
        group: str,
        *,
        reset: Literal["earliest", "latest"] = "earliest",
        co_partitioned: bool = False,
        client_id: str = "",
    ) -> LocalConsumer:
        """A member of `group`."""
        return LocalConsumer(self._open, self._clock, self._timeouts, group, reset, co_partitioned, client_id)

    def reader(self, offsets: Offsets, isolation: Isolation = "read_committed") -> LocalReader:
        """A reader from these offsets on. Raises UnknownTopic."""
        return LocalReader(self._open(), self._clock, offsets, isolation)

    def producer(self, transactional_id: str | None = None) -> LocalProducer:
        """A producer; with an id it fences the last holder of it."""
        timeout_ms = int(self._timeouts.transaction_s * 1000)
        return LocalProducer(self._open(), self._clock, transactional_id, timeout_ms)

    def admin(self) -> LocalAdmin:
        """An admin client."""
        return LocalAdmin(self._open(), self._clock)
