"""Copies of state that other workers own, kept up to date from its changelog, for the moment it comes here.

Which member of a group gets the partitions of one that died is the group's decision, not ours. So copies are spread by
rendezvous hashing over the members that there are: with as many standbys as other workers, every one of them has all.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256

from streampipe.brokers.port import Admin, Member, Reader
from streampipe.errors import StreampipeError
from streampipe.records import TopicPartition
from streampipe.runtime.job import Job
from streampipe.runtime.port import Task
from streampipe.runtime.restore import STEP_RECORDS, by_partition
from streampipe.state.kept import Mark
from streampipe.state.port import StateStore, put_named

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""How often the members of the group are looked at."""


@dataclass(slots=True)
class _Copy:
    store: str
    entries: StateStore
    topic_id: str
    position: int
    read_at_ms: int
    """When it was last read on, by the wall clock."""


class Standbys:
    """Those of one worker. All but `step` are harmless with none."""

    def __init__(self, job: Job, admin: Admin) -> None:
        self._job, self._admin, self._clock = job, admin, job.clock
        self._copies: dict[TopicPartition, _Copy] = {}
        self._reader: Reader | None = None
        self._next_look_s = self._again_s = 0.0

    def step(self, task: Task, owned: Collection[TopicPartition]) -> None:
        """Read on, at most one batch; now and then, see whose copies are wanted here. Whatever fails is tried later."""
        now = self._clock.monotonic_s()
        if not self._job.settings.standbys or now < self._again_s:
            return
        try:
            if now >= self._next_look_s:
                self._next_look_s = now + LOOK_S
                self._look(task, owned)
            self._read_on()
        except StreampipeError as error:
            log.info("standbys are not read on for now: %s", error)  # what they are by now stays true
            self._again_s = now + LOOK_S
            self._reopen()

    def hand_over(self, task: Task, arriving: Collection[TopicPartition]) -> None:
        """Partitions come here: what there is of their state is where the task will look for it."""
        for source, copy in list(self._copies.items()):
            if any(TopicPartition(topic, source.partition) in arriving for topic in task.replicated[copy.store][1]):
                mark = Mark(copy.topic_id, copy.position, copy.read_at_ms)
                task.lend(copy.store, source.partition, copy.entries, mark)
                del self._copies[source]
                self._reopen()

    def close(self) -> None:
        """Let all copies go."""
        for copy in self._copies.values():
            copy.entries.close()
        self._copies.clear()
        self._reopen()

    def _look(self, task: Task, owned: Collection[TopicPartition]) -> None:
        group = self._admin.describe_group(self._job.app_id)
        if group.state != "stable":
            return
        wanted = self._wanted(task, owned, group.members)
        for source in self._copies.keys() - wanted.keys():
            self._copies.pop(source).entries.close()
            self._reopen()
        if new := {source: store for source, store in wanted.items() if source not in self._copies}:
            self._begin(task, new)
        ends = self._admin.offsets(list(self._copies), "latest") if self._copies else {}
        behind = sum(max(0, ends[source] - copy.position) for source, copy in self._copies.items())
        self._job.observer.standing_by(len(self._copies), behind)

    def _wanted(
        self, task: Task, owned: Collection[TopicPartition], members: Collection[Member]
    ) -> dict[TopicPartition, str]:
        """Stores by their changelog partition."""
        topics, me, wanted = self._admin.topics(), self._job.transactional_id, dict[TopicPartition, str]()
        for store, (changelog, inputs) in task.replicated.items():
            for number in range(topics.get(changelog, 0)):
                own = {TopicPartition(topic, number) for topic in inputs}
                # Partitions that are on their way here are this member's for the group already: the copy is needed now.
                others = {m.client for m in members if m.client == me or own.isdisjoint(m.partitions)}
                nearest = sorted(others, key=lambda client: sha256(f"{client}/{number}".encode()).digest())
                if me in nearest[: self._job.settings.standbys] and own.isdisjoint(owned):
                    wanted[TopicPartition(changelog, number)] = store
        return wanted

    def _begin(self, task: Task, new: dict[TopicPartition, str]) -> None:
        """Begin with what was kept here, if it is of the same topic, else with nothing."""
        now_ms = self._clock.now_ms()
        ids = {topic: self._admin.describe_topic(topic).id for topic in {source.topic for source in new}}
        firsts, ends = (self._admin.offsets(list(new), at, "read_uncommitted") for at in ("earliest", "latest"))
        for source, store in new.items():
            entries, first = task.replica(store, source.partition), firsts[source]
            mark = entries.mark
            if mark is not None and mark.usable(ids[source.topic], first, ends[source], now_ms):
                first, at_ms = mark.offset, mark.at_ms
            else:
                entries.clear()
                at_ms = now_ms
            self._copies[source] = _Copy(store, entries, ids[source.topic], first, at_ms)
        log.info("standby for %d partitions of state", len(self._copies))
        self._reopen()

    def _read_on(self) -> None:
        if self._reader is None and self._copies:
            self._reader = self._job.broker.reader({source: copy.position for source, copy in self._copies.items()})
        if self._reader is None:
            return
        for batch in self._reader.poll(STEP_RECORDS, 0.0):
            for source, rows in by_partition(batch):
                put_named(self._copies[source].entries, rows.keys, rows.values)
        now_ms = self._clock.now_ms()
        for source, copy in self._copies.items():
            copy.position, copy.read_at_ms = max(copy.position, self._reader.position(source)), now_ms

    def _reopen(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
