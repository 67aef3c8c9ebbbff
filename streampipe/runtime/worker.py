"""A worker: runs a processor's task as a member of its consumer group until stopped, finished or beyond repair."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from streampipe.brokers.port import Admin, Broker
from streampipe.clock import Clock, SystemClock
from streampipe.config import Settings
from streampipe.errors import (
    ClientLost,
    Fenced,
    ProcessingStopped,
    StateLost,
    StreampipeError,
    TransactionAborted,
    Unavailable,
)
from streampipe.records import TopicPartition
from streampipe.runtime.commit import MemberFenced, OutcomeUnknown
from streampipe.runtime.finish import FinishLine, caught_up
from streampipe.runtime.job import Job, input_topics
from streampipe.runtime.observer import NullObserver
from streampipe.runtime.port import Observer, Task
from streampipe.runtime.session import Session

log = logging.getLogger(__name__)

START_PATIENCE_S = 15.0
"""How long a broker may be unreachable when a worker starts; later on there is no limit."""
MAX_SINGLE_ABORTS = 3
"""Aborts of a transaction that holds one record, before the worker stops at that record."""
MAX_MEMBER_FENCES = 5
"""Refused commits in a row before a worker leaves the group and joins anew."""
MAX_REJOINS, REJOIN_PERIOD_S = 3, 600.0
FINISH_LOOK_S = 0.2
UNAVAILABLE_S = 30.0
"""After how long without one step that worked a session starts over: with another producer, whose transactional id ends
whatever transaction is left open and holds back the group's offsets, and with readers of its own."""
JOIN_PATIENCE_S = 5.0
"""How long a worker without partitions waits for some before it believes that there are none left for it."""

Repair = Callable[[], None]


class Worker:
    """Polls, processes and commits; repairs what can be repaired.

    What goes wrong, and what happens then (nothing uncommitted survives any of it):
    - the transaction is aborted: rewind to the committed offsets with a new task; smaller transactions until the
      records that failed are through; ProcessingStopped when a single record fails three times
    - the group moved on without this member (refused offsets, lost partitions): rewind likewise
    - another producer took over: leave and join anew, at most three times in ten minutes, then Fenced
    - a state store on disk is damaged: rewind likewise, as often at most, with all state read back from its changelogs
    - the outcome of a commit is unknown: new producer, then rewind to what the group has committed
    - broker or registry cannot be reached: wait and try again, without limit once the worker has started
    """

    def __init__(
        self,
        task_factory: Callable[[], Task],
        broker: Broker,
        settings: Settings,
        *,
        app_id: str,
        slot: int = 0,
        instance: str = "",
        observer: Observer | None = None,
        clock: Clock | None = None,
        until: Mapping[TopicPartition, int] | None = None,
        until_caught_up: bool = False,
        close_windows: bool = False,
        replay: bool = False,
        start_patience_s: float = START_PATIENCE_S,
    ) -> None:
        """A worker of group `app_id`; no connection is made before `run`.

        `slot` (and `instance`, where several hosts run the same slots) make the stable transactional id.
        `until`: records at or beyond these offsets are not processed; finished when the group reached all.
        `until_caught_up`: finished when the group committed what was there at the start, and what came of it in
        the processor's own repartition topics. `close_windows`: close them all before finishing.
        `replay`: nothing depends on the wall clock.
        """
        self._clock = clock or SystemClock()
        self._observer = observer or NullObserver()
        # A restore may have to wait until the broker ends somebody's open transaction.
        patience_s = max(120.0, 4 * settings.transaction_timeout_ms / 1000)
        self._job = Job(
            task_factory, broker, settings, app_id, slot, instance, self._observer, self._clock, dict(until or {}),
            replay, patience_s,
        )  # fmt: skip
        self._until_caught_up, self._close_windows = until_caught_up, close_windows
        self._start_patience_s = start_patience_s
        self._stopping = self._abandoning = False
        self._admin: Admin | None = None
        self._session: Session | None = None
        self._finish: FinishLine | None = None
        self._next_finish_look = 0.0
        self._closed_at_activity = -1
        self._levels_left = False
        self._repair: Repair | None = None
        self._member_fences = self._single_aborts = self._commits_seen = 0
        self._rejoins: deque[float] = deque()
        self._backoff_s = 0.0
        self._last_log_s = float("-inf")
        self._reachable = True
        self._unavailable_since: float | None = None

    def stop(self) -> None:
        """Stop soon: what is polled so far is committed, the rest left to others. For signals and other threads."""
        self._stopping = True

    def abandon(self) -> None:
        """Stop without committing. For signals and other threads."""
        self._abandoning = self._stopping = True

    def run(self) -> None:
        """Work until stopped or finished.

        Raises Unavailable when the broker cannot be reached at the start, ProcessingStopped, NotFound,
        StateCorrupted, Fenced, and whatever a bug in the processor raises.
        """
        for _ in self.turns():
            pass

    def turns(self) -> Iterator[None]:
        """`run` in turns, for somebody who runs several workers in one thread. Raises what `run` does."""
        self._observer.state("starting")
        try:
            self._start()
            yield
            yield from self._loop()
            self._drain()
        except BaseException:
            self._observer.state("failed")
            raise
        else:
            self._observer.state("stopped")
        finally:
            self._close()

    def _start(self) -> None:
        deadline = self._clock.monotonic_s() + self._start_patience_s
        while not self._stopping:
            try:
                self._open()
            except Unavailable as error:
                if self._clock.monotonic_s() >= deadline:
                    raise
                self._wait(error)
            else:
                return

    def _open(self) -> None:
        if self._admin is None:
            self._admin = self._job.broker.admin()
        job = self._job
        if self._finish is None and (self._until_caught_up or job.until):
            topics = input_topics(job.task_factory())
            if self._until_caught_up:
                self._finish = caught_up(self._admin, self._clock, job.app_id, topics)
            else:
                self._finish = FinishLine(self._admin, job.app_id, job.until, topics)
        if self._session is None:
            self._session = Session(job, self._admin)
            try:
                self._session.join()
            except BaseException:
                self._leave()
                raise

    def _loop(self) -> Iterator[None]:
        while not self._stopping:
            yield
            try:
                if self._repair is not None:
                    self._repair()
                    self._repair = None
                if self._step():
                    return
            except StreampipeError as error:
                self._repair = self._repair_of(error)

    def _step(self) -> bool:
        """One step; True when finished."""
        session = self._session
        assert session is not None
        session.step()
        self._told_reachable(reachable=True)
        self._backoff_s, self._unavailable_since = 0.0, None
        if session.commits != self._commits_seen:
            self._commits_seen = session.commits
            self._member_fences = self._single_aborts = 0
        return self._finished(session)

    def _finished(self, session: Session) -> bool:
        now = self._clock.monotonic_s()
        if self._finish is None or not session.quiet or now < self._next_finish_look:
            return False
        if not session.activity and now < session.joined_at + JOIN_PATIENCE_S:
            return False  # the state of partitions to come may still have windows to close
        self._next_finish_look = now + FINISH_LOOK_S
        if not self._finish.reached():
            return False
        if self._close_windows and (self._levels_left or self._closed_at_activity != session.activity):
            self._closed_at_activity = session.activity
            self._levels_left = session.close_windows()
            return False
        return True

    def _repair_of(self, error: StreampipeError) -> Repair | None:
        """What to do before the next step; raises the error when nothing helps."""
        session = self._session
        if isinstance(error, OutcomeUnknown) and session is not None:
            self._wait(error)
            return lambda: session.reset(new_producer=True)
        if isinstance(error, Unavailable):
            self._wait(error)
            if session is None or not self._unavailable_for_long():
                return self._repair
            return lambda: session.reset(new_producer=True)
        if session is None or not isinstance(error, TransactionAborted):
            raise error
        self._closed_at_activity = -1
        if isinstance(error, MemberFenced) and self._member_fences < MAX_MEMBER_FENCES:
            self._member_fences += 1
            log.info("work since the last commit is repeated: %s", error)
        elif isinstance(error, Fenced):
            if not isinstance(error, ClientLost):
                self._count(error)
            log.warning("joining the group anew: %s", error)
            return self._rejoin
        elif isinstance(error, StateLost):
            self._count(error)
            log.warning("state on disk is not used, its changelog is read whole: %s", error)
        else:
            self._narrow(session, error)
        return lambda: session.reset(new_producer=False)

    def _narrow(self, session: Session, error: TransactionAborted) -> None:
        ranges = session.uncommitted_ranges()
        log.warning("transaction aborted, its records are tried again in smaller ones (%s): %s", ranges, error)
        if not session.narrow():
            self._single_aborts += 1
            if self._single_aborts >= MAX_SINGLE_ABORTS:
                raise ProcessingStopped(
                    f"stopped at {ranges}: its output cannot be committed, tried {self._single_aborts} times: {error}"
                ) from error

    def _count(self, error: Fenced | StateLost) -> None:
        """Raise the error when there were too many of the kind of late for another try to help."""
        now = self._clock.monotonic_s()
        while self._rejoins and now - self._rejoins[0] > REJOIN_PERIOD_S:
            self._rejoins.popleft()
        if len(self._rejoins) >= MAX_REJOINS:
            raise error
        self._rejoins.append(now)

    def _rejoin(self) -> None:
        self._leave()
        self._member_fences = self._commits_seen = 0
        self._open()

    def _wait(self, error: Unavailable) -> None:
        """Back off; one line in the log a second at most."""
        self._told_reachable(reachable=False)
        now = self._clock.monotonic_s()
        if now - self._last_log_s >= 1.0:
            self._last_log_s = now
            log.warning("trying again: %s", error)
        self._backoff_s = min(1.0, self._backoff_s * 2 or 0.05)
        self._clock.sleep_s(self._backoff_s)

    def _unavailable_for_long(self) -> bool:
        """Whether it is time to start over, which is tried again as long as nothing works."""
        now = self._clock.monotonic_s()
        self._unavailable_since = now if self._unavailable_since is None else self._unavailable_since
        if now - self._unavailable_since < UNAVAILABLE_S:
            return False
        self._unavailable_since = now
        return True

    def _told_reachable(self, *, reachable: bool) -> None:
        if reachable != self._reachable:
            self._reachable = reachable
            self._observer.broker_reachable(reachable)

    def _drain(self) -> None:
        """Commit what is processed, unless it is void already."""
        if self._session is None or self._repair is not None or self._abandoning:
            return
        self._observer.state("draining")
        try:
            self._session.drain()
        except (TransactionAborted, Unavailable) as error:
            log.warning("work since the last commit is left to the next worker: %s", error)

    def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _close(self) -> None:
        try:
            self._leave()
        finally:
            if self._admin is not None:
                self._admin.close()
