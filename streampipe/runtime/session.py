"""One membership of the group: a consumer, a producer and a task that live and die together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streampipe.brokers.port import Admin
from streampipe.errors import StreampipeError
from streampipe.records import IntArray, RecordBatch, TopicPartition
from streampipe.runtime.backlog import Backlog, PollSize
from streampipe.runtime.commit import Committer, MemberFenced, emitting, open_committer, result_of
from streampipe.runtime.global_tables import GlobalTables
from streampipe.runtime.idle import IdlePartitions
from streampipe.runtime.job import Job, input_topics
from streampipe.runtime.keeping import keep_state
from streampipe.runtime.partitions import Partitions
from streampipe.runtime.port import State, TaskOutput
from streampipe.runtime.restore import Restorer
from streampipe.runtime.silence import Silence
from streampipe.runtime.standby import Standbys
from streampipe.runtime.time_order import Exhausted, TimeOrder
from streampipe.runtime.uncommitted import Uncommitted

MAX_UNCOMMITTED = 500_000
"""Records processed between two commits, at most: bounds memory when commits are far apart."""


class Session:
    """Polls, processes and commits, a step at a time; also the listener of its own group membership.

    Listener calls only note what happened, apart from the last commit of partitions that go away: whatever needs
    the broker is done by the next step, where it can be tried again.
    """

    def __init__(self, job: Job, admin: Admin) -> None:
        self._job, self._admin = job, admin
        self._observer, self._clock, self._settings = job.observer, job.clock, job.settings
        self._closing = False
        self.task = job.task_factory()
        self._topics = input_topics(self.task)
        co_partitioned = any(len(part.streams) + len(part.tables) > 1 for part in self.task.subtopologies)
        self.consumer = job.broker.consumer(job.app_id, co_partitioned=co_partitioned, client_id=job.transactional_id)
        try:
            self.committer: Committer = self._open_committer()
        except BaseException:
            self.consumer.close()
            raise
        self._mine = Partitions(self.consumer, self.task.subtopologies, job.until)
        self._standbys = Standbys(job, admin)
        self._silence = Silence(admin, self._clock, job.app_id, job.transactional_id)
        self._rewind = False
        self._lost = False
        self._state: State | None = None
        self._poll_size = PollSize(self._settings.batch_size)
        self.commits = 0
        self.joined_at = self._clock.monotonic_s()
        self._fresh()

    def _open_committer(self) -> Committer:
        return open_committer(self._settings, self._job.broker, self.consumer, self._job.transactional_id)

    def _fresh(self) -> None:
        """Everything that is thrown away together with a task."""
        self._tables = GlobalTables(self.task.global_tables, self._job.broker, self._admin, self._clock)
        self._restorer = Restorer(
            self._job.broker, self._admin, self._observer, self._clock, self._job.restore_patience_s
        )
        self._idle = IdlePartitions(self._admin, self._clock, self.task.idle_after_s, self.task.subtopologies)
        exhausted = Exhausted(self._admin, self._clock, self.consumer, self._mine)
        order = TimeOrder(self.task.subtopologies, self._times, exhausted)
        self._backlog = Backlog(self._clock, self._observer, self._settings.batch_size, order)
        self._touched = False
        self._polled = 0
        self.activity = 0
        """Grows whenever this worker takes on partitions or processes records."""
        self.uncommitted = Uncommitted()
        self._last_commit = self._clock.monotonic_s()

    def join(self) -> None:
        """Join the group. Raises UnknownTopic, Unavailable."""
        self.consumer.subscribe(self._topics, self)
        self.joined_at = self._clock.monotonic_s()

    # -- what the group decides ------------------------------------------------------------------------------

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Hold the partitions back; the next step takes them on."""
        if self._closing:
            return
        self._tell("rebalancing")
        self._mine.arrive(partitions)
        self._observer.rebalanced("assigned", partitions, 0.0)

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Commit what is processed, then let go."""
        if self._closing:
            return
        self._tell("rebalancing")
        started = self._clock.monotonic_s()
        try:
            if not self._lost:
                # Still the owner until this returns, perhaps in a newer generation than that of the last poll.
                self.commit()
                self._keep(set(partitions))
        finally:
            self._let_go(set(partitions))
        self._observer.rebalanced("revoked", partitions, self._clock.monotonic_s() - started)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Somebody else may own them already: everything uncommitted is void."""
        if self._closing:
            return
        self._lost = True
        self._observer.rebalanced("lost", partitions, 0.0)

    def _let_go(self, gone: set[TopicPartition]) -> None:
        self._backlog.let_go(gone)
        self.task.revoke(sorted(gone & self._mine.owned))
        self._mine.go(gone)
        self._idle.forget(gone)
        # A restore does not say which of the topics it serves: those that stay behind are taken on once more.
        numbers = self._restorer.partitions & {tp.partition for tp in gone}
        if numbers:
            self._restorer.drop(numbers)
            self.task.revoke(self._mine.return_to_arriving(numbers))

    def _tell(self, state: State) -> None:
        if state != self._state:
            self._observer.state(state)
            self._state = state

    # -- one step --------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One round of the loop. Raises Unavailable: call again; anything else: nothing uncommitted may stay."""
        self._check_membership()
        self._take_on()
        self._hold()
        self._poll()
        # Right after the poll, whose membership fences the commit: a rebalance since then would refuse it.
        if self._commit_is_due():
            self.commit()
        self._tables.step(self.task)
        self._restorer.step(self.task)
        self._standbys.step(self.task, self._mine.owned)
        self._process()
        if self.committer.early and self._touched:
            self._produce_early()
        self._follow_clock()
        self._notice_silence()

    def drain(self) -> None:
        """Commit what is processed, as the last thing this member does; what is only polled is left to others."""
        self._poll(wait=False)
        self.commit()
        self._keep(self._mine.owned)

    def _check_membership(self) -> None:
        if self._lost:
            raise MemberFenced("this member fell out of the group; its partitions were lost")

    @property
    def quiet(self) -> bool:
        """Nothing arrived lately and nothing is left to do."""
        return not (self._backlog.waiting or self._mine.arriving or self._polled or self.uncommitted or self._touched
                    or self._restoring)  # fmt: skip

    @property
    def _restoring(self) -> bool:
        return bool(self._restorer.partitions) or not self._tables.loaded

    def _take_on(self) -> None:
        """Give the task what arrived. All that needs the broker comes first, so that it can be tried again."""
        if not self._mine.arriving:
            return
        arriving = sorted(self._mine.arriving)
        committed = self.consumer.committed(arriving)
        tables = {topic for part in self.task.subtopologies for topic in part.tables}
        of_tables = [tp for tp in arriving if tp.topic in tables]
        table_ends = self._admin.offsets(of_tables, "latest", "read_uncommitted") if of_tables else {}
        if self._rewind:
            fresh = [tp for tp in arriving if tp not in committed]
            starts = {**committed, **(self._admin.offsets(fresh, "earliest") if fresh else {})}
            for partition in arriving:
                self.consumer.seek(partition, starts[partition])
            self._rewind = False
        self._mine.take_on(committed, table_ends)
        self._standbys.hand_over(self.task, arriving)
        self._restorer.add(self.task.assign(arriving), committed)
        self.activity += 1
        for partition in arriving:
            self._idle.heard(partition)

    def _hold(self) -> None:
        waiting = bool(self._backlog) or not self._tables.loaded
        ahead = self._backlog.too_far_ahead()
        self._mine.hold(everything=waiting, restoring=self._restorer.partitions, ahead=ahead)
        self._tell("restoring" if self._restoring or self._mine.arriving else "running")

    def _poll(self, *, wait: bool = True) -> None:
        started = self._clock.monotonic_s()
        batches = self.consumer.poll(self._poll_size.limit, self._wait_s(started) if wait else 0.0)
        self._polled = sum(map(len, batches))
        self._observer.polled(self._polled, self._clock.monotonic_s() - started)
        for batch in batches:
            self._observer.consumed(batch.topic, len(batch), _bytes_of(batch.values))
        self._backlog.add(map(self._mine.admit, batches))
        self._check_membership()

    def _wait_s(self, now: float) -> float:
        longest = self._settings.max_poll_wait_ms / 1000
        if self._backlog.retry_at:
            return min(longest, max(0.0, self._backlog.retry_at - now))
        if self._backlog or self._restoring or self._mine.arriving:
            return 0.0
        if self.uncommitted or self._touched:
            return min(longest, max(0.0, self._commit_at() - now))
        return longest

    def _process(self) -> None:
        idle = not (self._backlog.waiting or self._polled or self._mine.paused or self.uncommitted)
        anything = self._backlog.waiting
        for batch, seconds in self._backlog.turn(lambda batches: self.task.process(batches, self._now_ms)):
            self._processed(batch, seconds)
        if idle:
            self._observer.oldest_unprocessed(dict.fromkeys(self._mine.owned))
        elif anything and not self._backlog.retry_at:
            self._observer.oldest_unprocessed(self.uncommitted.oldest(self._mine.owned))

    @property
    def _now_ms(self) -> int | None:
        return None if self._job.replay else self._clock.now_ms()

    def _times(self, batch: RecordBatch) -> IntArray:
        return self.task.times(batch, self._now_ms)

    def _processed(self, batch: RecordBatch, seconds: float) -> None:
        self._touched = True
        self.activity += 1
        self.uncommitted.processed(batch)
        self._observer.processed(batch.topic, len(batch), seconds)
        for number in np.unique(batch.partitions).tolist():
            self._idle.heard(TopicPartition(batch.topic, number))

    def _follow_clock(self) -> None:
        # A partition whose records wait looks like one that is silent and read to its end.
        if self._job.replay or self._backlog.waiting or self._restoring:
            return
        for part, silent_s in self._idle.look(self._mine.waiting, self.consumer.position).items():
            self.task.advance(self._clock.now_ms(), silent_s, part)
            self._touched = True

    def _notice_silence(self) -> None:
        busy = self._polled or self._backlog.waiting or self._restoring or self._mine.arriving
        if busy or self._rewind:
            self._silence.heard()
        else:
            self._silence.look(self._mine.owned, self._mine.paused, self.consumer.position)

    # -- commit ----------------------------------------------------------------------------------------------

    def close_windows(self) -> bool:
        """Close the next level of open windows and commit what that gives; True when deeper levels are left."""
        self.consumer.group_metadata()  # as of the last poll; see commit
        deeper = emitting(self.task.close_windows)
        self._touched = True
        self.commit()
        return deeper

    def commit(self) -> None:
        """Make everything processed so far visible; nothing happens when there is nothing new."""
        started = self._clock.monotonic_s()
        # Before anything that takes time: a member that falls out meanwhile would get a token that fences nothing.
        metadata = self.consumer.group_metadata()
        self._last_commit = started
        output = emitting(self.task.drain) if self._touched else TaskOutput()
        positions = self._mine.positions(self._backlog.firsts())
        moved = {tp: offset for tp, offset in positions.items() if offset > self._mine.committed.get(tp, 0)}
        self.uncommitted.gave(output)
        if moved or self.uncommitted:
            self._commit(output, moved or positions, metadata, started)
        self._touched = False
        self.uncommitted = Uncommitted()

    def _commit(self, output: TaskOutput, offsets: dict[TopicPartition, int], metadata: object, started: float) -> None:
        try:
            self.committer.commit(output, offsets, metadata)
        except StreampipeError as error:
            self._observer.committed(result_of(error), self._clock.monotonic_s() - started, None, None)
            raise
        self._mine.committed.update(offsets)
        self.commits += 1
        self._poll_size.committed(self.uncommitted.records)
        for topic, count in self.uncommitted.produced.items():
            self._observer.produced(topic, count)
        latencies = self.uncommitted.latencies_s(self._clock.now_ms())
        seconds = self._clock.monotonic_s() - started
        self._observer.committed("ok", seconds, self.uncommitted.counts(offsets), latencies)

    def _keep(self, gone: set[TopicPartition]) -> None:
        """Keep the state that goes with these partitions, all of it committed."""
        going = [what for what in self.task.kept(gone) if what.partition not in self._restorer.partitions]
        if going:
            keep_state(self.task, going, self._mine.committed, self._admin, self._confirm, self._clock.now_ms())

    def _confirm(self) -> None:
        positions, metadata = self._mine.positions(self._backlog.firsts()), self.consumer.group_metadata()
        self.committer.commit(TaskOutput(), positions, metadata)

    def _produce_early(self) -> None:
        output = emitting(self.task.take)
        if output:
            self.uncommitted.gave(output)
            self.committer.produce(output)

    def _commit_at(self) -> float:
        return self._last_commit + self._settings.commit_interval_ms / 1000

    def _commit_is_due(self) -> bool:
        narrowed = self._poll_size.narrowed and self.uncommitted.records > 0
        too_much = self.uncommitted.records >= MAX_UNCOMMITTED
        return narrowed or too_much or self._clock.monotonic_s() >= self._commit_at()

    # -- after a failure, and the end ------------------------------------------------------------------------

    def reset(self, *, new_producer: bool) -> None:
        """Forget everything uncommitted and start again from the committed offsets, still in the group.

        Raises Unavailable (call again), Fenced.
        """
        if new_producer:
            self.committer.close()
            self.committer = self._open_committer()
        else:
            self.committer.abort()
        self._tables.close()
        self._restorer.close()
        self.task = self._job.task_factory()
        self._fresh()
        self._mine.start_over()
        self._rewind = True
        self._lost = False

    def narrow(self) -> bool:
        """Poll fewer records at a time until those that just failed are committed; False: it was one record."""
        return self._poll_size.narrow(self.uncommitted.records)

    def uncommitted_ranges(self) -> str:
        """The offsets of the records since the last commit, for a message."""
        return self.uncommitted.ranges(self._mine.positions(self._backlog.firsts()))

    def close(self) -> None:
        """Leave the group; what is not committed is taken back."""
        self._closing = True
        try:
            self._tables.close()
            self._restorer.close()
            self._standbys.close()
            self.committer.close()
        finally:
            self.consumer.close()


def _bytes_of(values: Sequence[bytes | None]) -> int:
    try:
        return sum(map(len, values))  # type: ignore[arg-type]  # tombstones are rare, and say so by a TypeError
    except TypeError:
        return sum(map(len, filter(None, values)))
