"""How output and offsets become visible: in one transaction, or acknowledged first and committed after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

from streampipe.brokers.port import Broker, Consumer, Offsets, Producer
from streampipe.config import Settings
from streampipe.errors import Fenced, StreampipeError, TransactionAborted, Unavailable
from streampipe.runtime.port import TaskOutput

T = TypeVar("T")


class MemberFenced(Fenced):
    """The offsets were refused since the group moved on; the producer itself is still good."""


class OutcomeUnknown(Unavailable):
    """The broker fell silent between begin and commit; only the group's committed offsets tell what happened."""


class Committer(Protocol):
    """Makes the work since the last commit visible, or takes it back."""

    early: bool
    """Whether output may be produced before its commit is due."""

    def produce(self, output: TaskOutput) -> None:
        """Produce without committing. Raises TransactionAborted, Fenced, OutcomeUnknown."""

    def commit(self, output: TaskOutput, offsets: Offsets, metadata: object) -> None:
        """Produce the rest and commit everything since the last commit. Raises MemberFenced besides."""

    def abort(self) -> None:
        """Take back what is not committed, as far as the guarantee allows."""

    def close(self) -> None:
        """Release the producer; what is not committed is taken back."""


def open_committer(settings: Settings, broker: Broker, consumer: Consumer, transactional_id: str) -> Committer:
    """Open the producer of a worker. With a transactional id this ends what its predecessor left open."""
    if settings.guarantee == "at-least-once":
        return AtLeastOnce(broker, consumer)
    # A transaction that outlives its timeout is aborted by the broker. When commits are far apart, output
    # waits in memory instead (bounded by the worker's limit of uncommitted records).
    early = settings.commit_interval_ms * 5 <= settings.transaction_timeout_ms
    return ExactlyOnce(broker.producer(transactional_id), early=early)


class ExactlyOnce:
    """One transaction a commit, begun when there is something to produce (KIP-447)."""

    def __init__(self, producer: Producer, *, early: bool) -> None:
        self.early = early
        self._producer = producer
        self._begun = False

    def produce(self, output: TaskOutput) -> None:
        """Produce into the open transaction."""
        _known_outcome(lambda: self._produce(output))

    def commit(self, output: TaskOutput, offsets: Offsets, metadata: object) -> None:
        """Commit records, changelog, dead letters and offsets as one."""
        _known_outcome(lambda: self._commit(output, offsets, metadata))

    def _produce(self, output: TaskOutput) -> None:
        if not self._begun:
            self._producer.begin()
            self._begun = True
        _produce(self._producer, output)

    def _commit(self, output: TaskOutput, offsets: Offsets, metadata: object) -> None:
        self._produce(output)
        try:
            self._producer.send_offsets(offsets, metadata)
        except Fenced as error:
            raise MemberFenced(str(error)) from error
        self._producer.commit()
        self._begun = False

    def abort(self) -> None:
        """Abort the transaction."""
        self._producer.abort()
        self._begun = False

    def close(self) -> None:
        """Close the producer, which aborts what is open."""
        self._producer.close()


class AtLeastOnce:
    """Everything is acknowledged before the offsets are committed: repeated after a failure, never lost."""

    early = True

    def __init__(self, broker: Broker, consumer: Consumer) -> None:
        self._broker = broker
        self._consumer = consumer
        self._producer: Producer = broker.producer()

    def produce(self, output: TaskOutput) -> None:
        """Queue the records."""
        _known_outcome(lambda: _produce(self._producer, output))

    def commit(self, output: TaskOutput, offsets: Offsets, metadata: object) -> None:  # noqa: ARG002 - the port's
        """Wait until every record is acknowledged, then commit the offsets."""
        _known_outcome(lambda: self._commit(output, offsets))

    def _commit(self, output: TaskOutput, offsets: Offsets) -> None:
        _produce(self._producer, output)
        try:
            self._producer.flush()
        except StreampipeError as error:
            if type(error) is not StreampipeError:
                raise
            # A record was refused: the work is taken back as with a transaction.
            raise TransactionAborted(str(error)) from error
        try:
            self._consumer.commit(offsets)
        except Fenced as error:
            raise MemberFenced(str(error)) from error

    def abort(self) -> None:
        """Start over with a new producer: errors that the old one remembers belong to work that is repeated."""
        self._producer.close()
        self._producer = self._broker.producer()

    def close(self) -> None:
        """Close the producer."""
        self._producer.close()


def _produce(producer: Producer, output: TaskOutput) -> None:
    for batches in (output.records, output.changelog, output.dead_letters):
        for batch in batches:
            if len(batch):
                producer.produce(batch)


def _known_outcome(call: Callable[[], None]) -> None:
    try:
        call()
    except Unavailable as error:
        raise OutcomeUnknown(str(error)) from error


def emitting(call: Callable[[], T]) -> T:
    """Output that could be made in part only is void: what is missing cannot be asked for again."""
    try:
        return call()
    except Unavailable as error:
        raise OutcomeUnknown(str(error)) from error


def result_of(error: StreampipeError) -> Literal["rebalance", "fenced", "error"]:
    """The observer's word for a commit that failed."""
    if isinstance(error, MemberFenced):
        return "rebalance"
    return "fenced" if isinstance(error, Fenced) else "error"
