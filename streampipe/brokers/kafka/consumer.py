"""A member of a consumer group: rebalances, pausing, seeking, committing."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from streampipe.brokers.kafka.errors import Translator, kafka_error
from streampipe.brokers.kafka.reader import MakeConsumer, Polling, check_topics, place
from streampipe.brokers.kafka.settings import REQUEST_TIMEOUT_S
from streampipe.brokers.port import RebalanceListener
from streampipe.errors import ClientLost, Fenced, StreampipeError, Unavailable
from streampipe.records import RecordBatch, TopicPartition

_PASSING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError._WAIT_COORD,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}
"""Answers while a group's coordinator moves or a transaction is pending: ask again."""
_AGAIN_S = 0.1
_ASSIGN_S = 3.0
"""How long an assignment, which holds up the poll, waits for pending transactions."""


class KafkaConsumer(Polling):
    """A group member. `eager` tells that its assignor takes everything away at each rebalance (classic range)."""

    def __init__(
        self,
        make: MakeConsumer,
        errors: Translator,
        *,
        reset: str,
        eager: bool,
    ) -> None:
        super().__init__(make, errors)
        self._reset = OFFSET_BEGINNING if reset == "earliest" else OFFSET_END
        self._eager = eager
        self._listener: RebalanceListener | None = None
        self._owned: set[TopicPartition] = set()
        self._gone: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._assigning: dict[TopicPartition, int] | None = None
        self._raised: BaseException | None = None
        self._token: object = None

    def subscribe(self, topics: Collection[str], listener: RebalanceListener) -> None:
        """Join the group. Raises UnknownTopic, Unavailable."""
        check_topics(self._consumer, set(topics), self._errors)
        self._known_topic = min(topics)
        self._topic = self._known_topic if len(topics) == 1 else None
        self._listener = listener
        self._errors.call(
            "subscribing",
            lambda: self._consumer.subscribe(
                list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            ),
        )

    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        """Records of owned partitions; a rebalance on the way ends the call early."""
        self._gone.clear()
        found = super().poll(max_records, timeout_s)
        self._token = None
        return found

    def _stranded(self) -> None:
        raise ClientLost(f"a member of a group on broker {self._errors.name} had lost its brokers")

    def assignment(self) -> set[TopicPartition]:
        """What this member owns now."""
        return set(self._owned)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Hand over nothing of these until resumed."""
        self._paused |= self._own(partitions)
        if self._assigning is None:
            self._errors.call("pausing", lambda: self._consumer.pause([place(p) for p in partitions]))

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Hand over records of these again."""
        self._paused -= self._own(partitions)
        if self._assigning is None:
            self._errors.call("resuming", lambda: self._consumer.resume([place(p) for p in partitions]))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Make `offset` the next one handed over."""
        self._own([partition])
        self._ends.pop(partition, None)
        self._starts[partition] = offset
        if self._assigning is not None and partition in self._assigning:
            self._assigning[partition] = offset
        else:
            self._errors.call("seeking", lambda: self._consumer.seek(place(partition, offset)))

    def committed(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The group's committed offsets; waits up to ten seconds for pending transactions and a moving coordinator."""
        return self._committed_within(REQUEST_TIMEOUT_S, partitions)

    def _committed_within(self, seconds: float, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        asked = [place(p) for p in partitions]
        deadline = time.monotonic() + seconds
        while (answer := self._committed(asked, deadline)) is None:
            time.sleep(_AGAIN_S)
        return {TopicPartition(p.topic, p.partition): p.offset for p in answer if p.offset >= 0}

    def _committed(self, asked: list[KafkaPartition], deadline: float) -> list[KafkaPartition] | None:
        """The partitions with their offsets; None when it is worth asking again."""
        doing = "reading committed offsets"
        try:
            answer = self._consumer.committed(asked, timeout=max(_AGAIN_S, deadline - time.monotonic()))
            failed: list[tuple[KafkaError | None, str | None]]
            failed = [(p.error, p.topic) for p in answer if p.error is not None]
        except KafkaException as exception:
            answer, failed = [], [(kafka_error(exception), None)]
        for error, topic in failed:
            if error is None or (error.code() in _PASSING and time.monotonic() >= deadline):
                raise self._errors.unreachable(f"{doing}: {error}")
            if error.code() not in _PASSING:
                raise self._errors.of(error, doing, topic)
        return None if failed else answer

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit outside a transaction. Raises Fenced for a partition that is not owned, Unavailable."""
        self._own(offsets)
        wanted = [place(partition, offset) for partition, offset in offsets.items()]
        if wanted:
            answer = self._errors.call(
                "committing offsets", lambda: self._consumer.commit(offsets=wanted, asynchronous=False)
            )
            self._check(answer, "committing offsets")

    def group_metadata(self) -> object:
        """Membership as of the last poll; None while this member owns nothing, which `send_offsets` refuses."""
        if self._token is None and self._owned:
            # only when asked for: librdkafka's answer takes milliseconds, and no poll has come in between
            self._token = self._consumer.consumer_group_metadata()
        return self._token

    def _own(self, partitions: Collection[TopicPartition]) -> set[TopicPartition]:
        wanted = set(partitions)
        if not wanted <= self._owned:
            missing = ", ".join(map(str, sorted(wanted - self._owned)))
            raise Fenced(f"{missing}: not owned by this member of the group (any more)")
        return wanted

    def _check(self, answer: Sequence[KafkaPartition], doing: str) -> None:
        for partition in answer:
            if partition.error is not None:
                raise self._errors.of(partition.error, doing, partition.topic)

    def _start(self, partition: TopicPartition) -> int:
        return self._start_offsets([partition])[partition]

    def _start_offsets(
        self, partitions: Sequence[TopicPartition], seconds: float = REQUEST_TIMEOUT_S
    ) -> dict[TopicPartition, int]:
        """Committed offsets, else where the reset says; waits so long for pending transactions."""
        known = self._committed_within(seconds, partitions)
        missing = [place(p, self._reset) for p in partitions if p not in known]
        if missing:
            known |= {TopicPartition(p.topic, p.partition): p.offset for p in self._look_up(missing)}
        return known

    def _look_up(self, asked: list[KafkaPartition]) -> list[KafkaPartition]:
        doing = "looking up offsets"
        try:
            answer: list[KafkaPartition] = self._errors.call(
                doing, lambda: self._consumer.offsets_for_times(asked, timeout=REQUEST_TIMEOUT_S)
            )
            self._check(answer, doing)
        except Unavailable:
            # before the next try, or it may go to the leader of old
            self._errors.call(doing, lambda: self._consumer.list_topics(timeout=REQUEST_TIMEOUT_S))
            raise
        return answer

    def _on_assign(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        added = _ours(partitions)
        self._owned = set(added) if self._eager else self._owned | set(added)
        self._assigning = dict.fromkeys(added, OFFSET_INVALID)
        self._forget(added)
        self._tell("on_assigned", added)
        starts, self._assigning = self._assigning, None
        starts |= self._numbers([p for p, offset in starts.items() if offset == OFFSET_INVALID])
        try:
            assign = consumer.assign if self._eager else consumer.incremental_assign
            assign([place(p, offset) for p, offset in starts.items()])
            paused = [place(p) for p in added if p in self._paused]
            if paused:
                consumer.pause(paused)
        except KafkaException as exception:
            self._raised = self._raised or exception

    def _numbers(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to start, as numbers; none while a transaction is pending or nobody answers.

        librdkafka, left to look up committed offsets itself, waits well for pending transactions, but never reads a
        partition again if its first answer is that the coordinator moved (its issue 5586): our question comes first.
        And "the end" must be a number before later records come, which else the poll tells.
        """
        try:
            return self._start_offsets(partitions, _ASSIGN_S) if partitions else {}
        except StreampipeError as exception:
            if self._reset == OFFSET_END or not isinstance(exception, Unavailable):
                self._raised = self._raised or exception
            return {}

    def _on_revoke(self, consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        gone = _ours(partitions)
        if not self._closed:  # a closing client may never answer, while it holds the interpreter's lock
            # the rebalance that brought us here began a new generation, and the listener may commit in it
            self._token = consumer.consumer_group_metadata()
        self._tell("on_revoked", gone)
        self._remove(gone)

    def _on_lost(self, _consumer: Consumer, partitions: list[KafkaPartition]) -> None:
        gone = _ours(partitions)
        self._remove(gone)
        self._tell("on_lost", gone)

    def _remove(self, partitions: list[TopicPartition]) -> None:
        self._owned -= set(partitions)
        self._gone |= set(partitions)
        self._token = None
        self._forget(partitions)

    def _forget(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._paused.discard(partition)
            self._ends.pop(partition, None)
            self._starts.pop(partition, None)

    def _tell(self, event: str, partitions: list[TopicPartition]) -> None:
        """Call the listener; what it raises waits, since raising into librdkafka's callback would lose the rest."""
        if self._listener is None or self._closed or not partitions:
            return
        try:
            getattr(self._listener, event)(partitions)
        except BaseException as exception:  # noqa: BLE001 - poll raises it
            self._raised = self._raised or exception

    def _interrupted(self) -> bool:
        return bool(self._gone) or self._raised is not None or super()._interrupted()

    def _handed_over(self, found: list[RecordBatch]) -> list[RecordBatch]:
        if self._raised is not None:
            self._rewind(found)
            raised, self._raised = self._raised, None
            raise raised
        if self._gone:
            found = [kept for batch in found if len(kept := self._still_owned(batch))]
        return super()._handed_over(found)

    def _still_owned(self, batch: RecordBatch) -> RecordBatch:
        """Without records of partitions that went away during this poll; one that came back starts anew."""
        gone = [p.partition for p in self._gone if p.topic == batch.topic]
        back = self._gone & self._owned
        lost = np.isin(batch.partitions, gone)
        for partition in {TopicPartition(batch.topic, int(p)) for p in batch.partitions[lost]} & back:
            self.seek(partition, self._start(partition))
        return batch.take(np.flatnonzero(~lost)) if lost.any() else batch

    def _rewind(self, found: list[RecordBatch]) -> None:
        """Make the records of a poll that raises come again."""
        for batch in found:
            for partition, at in zip(*np.unique(batch.partitions, return_index=True), strict=True):
                own = TopicPartition(batch.topic, int(partition))
                if own in self._owned and own not in self._gone:
                    self.seek(own, int(batch.offsets[at]))


def _ours(partitions: Sequence[KafkaPartition]) -> list[TopicPartition]:
    return [TopicPartition(p.topic, p.partition) for p in partitions]
