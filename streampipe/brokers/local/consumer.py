"""The consumer: a group member that takes part in rebalances from inside poll."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from typing import Literal

from streampipe.brokers.local import groups, log, transactions
from streampipe.brokers.local.database import Database
from streampipe.brokers.local.groups import Membership
from streampipe.brokers.local.reader import MAX_PAUSE_S, Fetcher, wait
from streampipe.brokers.port import Offsets, RebalanceListener
from streampipe.clock import Clock
from streampipe.errors import StreampipeError, Unavailable
from streampipe.records import RecordBatch, TopicPartition


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds after which a silent member, a member that does not poll, or a transaction is given up."""

    session_s: float = 6.0
    max_poll_interval_s: float = 300.0
    transaction_s: float = 15.0


class Heartbeat(Thread):
    """Keeps a member's session while its handler is busy, but not for longer than the max poll interval."""

    def __init__(self, open_db: Callable[[], Database], clock: Clock, timeouts: Timeouts, group: str) -> None:
        super().__init__(name=f"heartbeat-{group}", daemon=True)
        self._open_db = open_db
        self._clock = clock
        self._timeouts = timeouts
        self._group = group
        self._stopped = Event()
        self.member = ""
        self.polled_at_s = clock.monotonic_s()

    def deadline_ms(self) -> int:
        """When a session prolonged now ends."""
        return self._clock.now_ms() + int(self._timeouts.session_s * 1000)

    def run(self) -> None:
        """Beat three times a session."""
        db = None
        while not self._stopped.wait(self._timeouts.session_s / 3):
            try:
                db = db or self._open_db()
                self._beat(db)
            except StreampipeError:
                continue  # poll meets the same trouble, and tells
        if db is not None:
            db.close()

    def _beat(self, db: Database) -> None:
        if self._clock.monotonic_s() - self.polled_at_s > self._timeouts.max_poll_interval_s:
            with db.write():
                groups.leave(db, self._group, self.member)
        else:
            groups.heartbeat(db, self.member, self.deadline_ms())

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        if self.is_alive():
            self.join(timeout=8)


class LocalConsumer:
    """`Consumer` on the embedded log."""

    def __init__(
        self,
        open_db: Callable[[], Database],
        clock: Clock,
        timeouts: Timeouts,
        group: str,
        reset: Literal["earliest", "latest"],
        co_partitioned: bool,
        client_id: str,
    ) -> None:
        self._db = open_db()
        self._clock = clock
        self._timeouts = timeouts
        self._reset = reset
        self._co_partitioned = co_partitioned
        self._client = client_id
        self._topics: list[str] = []
        self._listener: RebalanceListener | None = None
        self._membership = Membership(group, "", -1)
        self._heartbeat = Heartbeat(open_db, clock, timeouts, group)
        self._fetcher = Fetcher(self._db, clock, "read_committed")
        self._owned: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()

    def subscribe(self, topics: Collection[str], listener: RebalanceListener) -> None:
        """Join the group, or change the topics. Raises UnknownTopic."""
        for topic in topics:
            log.topic(self._db, topic)
        self._topics = list(topics)
        self._listener = listener
        self._heartbeat.polled_at_s = self._clock.monotonic_s()
        with self._db.write():
            if self._membership.member:
                groups.resubscribe(self._db, self._membership.group, self._membership.member, topics)
            else:
                self._join()
        if not self._heartbeat.is_alive():
            self._heartbeat.start()

    def _join(self) -> None:
        group = self._membership.group
        deadline_ms = self._heartbeat.deadline_ms()
        member = groups.join(self._db, group, self._client, self._topics, self._co_partitioned, deadline_ms)
        self._membership = Membership(group, member, -1)
        self._heartbeat.member = member

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Take part in the group, then up to `max_records` records, waiting up to `timeout_s` for the first."""

        def attempt() -> list[RecordBatch]:
            self._sync()
            self._resolve()
            return self._fetcher.fetch(max_records, self._paused)

        return wait(self._clock, timeout_s, attempt)

    def _sync(self) -> None:
        """Follow what happened in the group since the last time; raises what a listener raised."""
        self._heartbeat.polled_at_s = self._clock.monotonic_s()
        if self._listener is None or not groups.changed(self._db, self._membership, self._clock.now_ms()):
            return
        with self._db.write():
            alive = groups.heartbeat(self._db, self._membership.member, self._heartbeat.deadline_ms())
            groups.expire(self._db, self._clock.now_ms())
            if not alive:
                self._join()
            view = groups.claim(self._db, self._membership.group, self._membership.member)
        self._membership = Membership(self._membership.group, self._membership.member, view.generation)
        failures: list[Exception] = []
        lost = self._owned - view.owned if alive else self._owned
        self._forget(lost)
        self._tell(self._listener.on_lost, lost, failures)
        self._tell(self._listener.on_revoked, view.leaving & self._owned, failures)
        self._forget(view.leaving)
        if view.leaving:
            with self._db.write():
                groups.release(self._db, self._membership.group, self._membership.member, view.leaving)
        added = view.owned - view.leaving - self._owned
        self._owned = self._owned | added
        self._tell(self._listener.on_assigned, added, failures)
        if failures:
            raise failures[0]

    def _tell(
        self,
        callback: Callable[[Sequence[TopicPartition]], None],
        partitions: Collection[TopicPartition],
        failures: list[Exception],
    ) -> None:
        if partitions:
            try:
                callback(sorted(partitions))
            except Exception as error:  # noqa: BLE001 - the group goes on; poll raises it in the end
                failures.append(error)

    def _forget(self, partitions: Collection[TopicPartition]) -> None:
        self._owned = self._owned - set(partitions)
        self._paused -= set(partitions)
        self._fetcher.remove(partitions)

    def _resolve(self) -> set[TopicPartition]:
        """Find where new partitions start; those with an offset in an open transaction wait, and are returned."""
        new = self._owned - self._fetcher.positions.keys()
        if not new:
            return new
        waiting = new & self._pending()
        committed = groups.committed(self._db, self._membership.group)
        ids = log.partition_ids(self._db, new - waiting)
        ends = log.ends(self._db, ids.values())
        for tp, partition_id in ids.items():
            start, stable, high = ends[partition_id]
            offset = committed.get(tp, -1)
            if not start <= offset <= high:
                offset = start if self._reset == "earliest" else stable
            self._fetcher.add({tp: offset})
        return waiting

    def _pending(self) -> set[TopicPartition]:
        transactions.expire(self._db, self._clock.now_ms())
        return groups.pending(self._db, self._membership.group)

    def _wait_while(self, pending: Callable[[], object]) -> None:
        """Wait for transactional offsets to be decided; their timeout bounds this. Raises Unavailable."""
        deadline = self._clock.monotonic_s() + self._timeouts.transaction_s + 5
        while pending():
            if self._clock.monotonic_s() > deadline:
                raise Unavailable(f"group {self._membership.group!r}: offsets wait for an open transaction; try again")
            self._clock.sleep_s(MAX_PAUSE_S)

    def position(self, partition: TopicPartition) -> int:
        """Offset of the next record to be handed over."""
        self._check_owned([partition])
        self._wait_while(lambda: partition in self._resolve())
        return self._fetcher.positions[partition]

    def assignment(self) -> set[TopicPartition]:
        """What this member owns now."""
        return set(self._owned)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Hand over nothing from these until resumed."""
        self._check_owned(partitions)
        self._paused |= set(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Hand over records of these again."""
        self._check_owned(partitions)
        self._paused -= set(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Make `offset` the next one handed over."""
        self._check_owned([partition])
        self._fetcher.add({partition: offset})

    def _check_owned(self, partitions: Collection[TopicPartition]) -> None:
        foreign = sorted(set(partitions) - self._owned)
        if foreign:
            raise ValueError(f"not assigned to this consumer: {', '.join(map(str, foreign))}")

    def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's committed offsets, once no open transaction holds one of these."""
        self._wait_while(lambda: self._pending() & set(partitions))
        offsets = groups.committed(self._db, self._membership.group)
        return {tp: offsets[tp] for tp in partitions if tp in offsets}

    def commit(self, offsets: Offsets) -> None:
        """Commit outside a transaction. Raises Fenced when this member no longer owns a partition."""
        with self._db.write():
            groups.check_owner(self._db, self._membership, offsets)
            groups.set_committed(self._db, self._membership.group, offsets)

    def group_metadata(self) -> object:
        """Token of the membership as of the last poll."""
        return self._membership

    def close(self) -> None:
        """Leave the group and close the connection."""
        self._heartbeat.stop()
        try:
            if self._membership.member:
                with self._db.write():
                    groups.leave(self._db, self._membership.group, self._membership.member)
        finally:
            self._db.close()
