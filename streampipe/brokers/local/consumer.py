"""The consumer: a group member that takes part in rebalances from inside poll."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Literal

from streampipe.brokers.local import groups, log, transactions
from streampipe.brokers.local.database import Database
from streampipe.brokers.local.groups import Membership, View
from streampipe.brokers.local.heartbeat import Heartbeat, Timeouts
from streampipe.brokers.local.reader import MAX_PAUSE_S, Fetcher, wait
from streampipe.brokers.port import Offsets, RebalanceListener
from streampipe.clock import Clock
from streampipe.errors import Unavailable, UnknownTopic
from streampipe.records import RecordBatch, TopicPartition


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
        self._owned: dict[TopicPartition, int] = {}  # as in groups.View
        self._settled = False
        self._paused: set[TopicPartition] = set()

    def subscribe(self, topics: Collection[str], listener: RebalanceListener) -> None:
        """Join the group, or change the topics. Raises UnknownTopic."""
        for topic in topics:
            log.topic(self._db, topic)
        self._topics = list(topics)
        self._listener = listener
        self._heartbeat.polled(self._db)
        with self._db.write():
            if self._membership.member:
                groups.resubscribe(self._db, self._membership.group, self._membership.member, topics)
            else:
                self._join()
        if self._timeouts.heartbeats and not self._heartbeat.is_alive():
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
            try:
                self._resolve()
                return self._fetcher.fetch(max_records, self._paused)
            except UnknownTopic:
                return []  # deleted a moment ago: the next sync reports its partitions as lost

        return wait(self._clock, timeout_s, attempt)

    def _sync(self) -> None:
        """Follow what happened in the group since the last time; raises what a listener raised."""
        if self._listener is None:
            return
        self._heartbeat.polled(self._db)
        if self._settled and not groups.changed(self._db, self._membership, self._clock.now_ms()):
            return
        self._settled = False
        view = self._view()
        failures = self._follow(view, self._listener)
        self._settled = True
        if failures:
            raise failures[0]

    def _view(self) -> View:
        """Take what is free and ours, after joining again if the session was over."""
        group = self._membership.group
        with self._db.write():
            alive = groups.heartbeat(self._db, self._membership.member, self._heartbeat.deadline_ms())
            groups.expire(self._db, self._clock.now_ms())
            if not alive:
                self._join()
            view = groups.claim(self._db, group, self._membership.member)
        self._membership = Membership(group, self._membership.member, view.generation)
        return view

    def _follow(self, view: View, listener: RebalanceListener) -> list[Exception]:
        """Make `view` ours and tell the listener step by step; what it raised."""
        failures: list[Exception] = []
        lost = [tp for tp, since in self._owned.items() if view.owned.get(tp) != since]
        self._forget(lost)
        self._tell(listener.on_lost, lost, failures)
        self._tell(listener.on_revoked, view.leaving & self._owned.keys(), failures)
        self._forget(view.leaving)
        if view.leaving:
            with self._db.write():
                groups.release(self._db, self._membership.group, self._membership.member, view.leaving)
        added = view.owned.keys() - view.leaving - self._owned.keys()
        self._owned |= {tp: view.owned[tp] for tp in added}
        self._tell(listener.on_assigned, added, failures)
        return failures

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
        for tp in partitions:
            self._owned.pop(tp, None)
        self._paused -= set(partitions)
        self._fetcher.remove(partitions)

    def _resolve(self) -> set[TopicPartition]:
        """Find where new partitions start; those with an offset in an open transaction wait, and are returned."""
        new = self._owned.keys() - self._fetcher.positions.keys()
        if not new:
            return new
        waiting = new & self._pending()
        committed = groups.committed(self._db, self._membership.group)
        # Sorted, since the order is that in which they are read: one of a set would be another in each process.
        ids = log.partition_ids(self._db, sorted(new - waiting))
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
        foreign = sorted(set(partitions) - self._owned.keys())
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
        member, self._membership = self._membership.member, Membership(self._membership.group, "", -1)
        try:
            if member:
                with self._db.write():
                    groups.leave(self._db, self._membership.group, member)
        finally:
            self._db.close()
