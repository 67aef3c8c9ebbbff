"""Kills workers: at seeded moments, and then as soon as the victim is seen to have a transaction open.

A moment alone would leave it to luck, and to the load of the machine, whether a kill cuts anything. Every third
strike does not aim: those hit starts, restores and rebalances as well.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection
from fractions import Fraction

from streampipe.brokers.port import Member
from streampipe.records import TopicPartition
from tests.chaos.evidence import Kill, partitions_of
from tests.chaos.feeder import Feeder
from tests.chaos.place import Place, Scenario
from tests.chaos.workers import Workers, await_true

KILL_ALL = 0.15
BLIND = 3
"""Every so many strikes one does not aim."""
AIM_S = 5.0
LOOK_S = 0.005
"""Between two looks for a transaction; a small part of the commit interval, as long as which they are open."""


class Nemesis:
    """Strikes one worker, now and then all, until there were enough kills."""

    def __init__(self, scenario: Scenario, place: Place, workers: Workers, feeder: Feeder) -> None:
        self._scenario, self._place, self._workers, self._feeder = scenario, place, workers, feeder
        self._every = list(range(scenario.slots))
        self._echo = partitions_of(place.admin, [place.topics.echo])
        self._chance = random.Random(f"{scenario.seed}-nemesis")
        self._kills: list[Kill] = []
        self._dead: set[str] = set()
        self._left_open: dict[TopicPartition, int] = {}

    def run(self) -> list[Kill]:
        """The kills of the scenario, perhaps a few more with the last strike."""
        strikes = 0
        while len(self._kills) < self._scenario.kills:
            strikes += 1
            self._strike(blind=strikes % BLIND == 0)
        return self._kills

    def _strike(self, *, blind: bool) -> None:
        delay = self._chance.uniform(0.0, 0.6 * self._scenario.pace_s)
        one = self._chance.choice(self._every)
        slots = self._every if self._chance.random() < KILL_ALL else [one]
        self._feed(Fraction(1, 3))
        before = self._kills[-1].committed if self._kills else 0
        await_true(lambda: self._place.committed() > before, f"progress after kill {len(self._kills)}", self._workers)
        self._feed(Fraction(2, 3))
        time.sleep(delay)
        self._feed(Fraction(1))  # the last third is for the aim: what is not fed opens no transaction
        self._kill(*(self._look(slots) if blind else self._aim(slots)))

    def _feed(self, part: Fraction) -> None:
        """Allow this part of the records that are meant for the next kill; one more share is for the end."""
        self._feeder.allow(int(self._scenario.records * (len(self._kills) + part) / (self._scenario.kills + 1)))

    def _kill(self, slots: list[int], cut: Collection[int]) -> None:
        for slot in slots:
            self._workers.kill(slot)
        committed, fed = self._place.committed(), self._feeder.fed
        self._kills += [Kill(slot, committed, fed, self._scenario.records, slot in cut) for slot in slots]
        self._dead |= {member.id for slot in slots for member in self._members(slot)}
        self._left_open = self._open()
        for slot in slots:
            self._workers.start(slot)

    # -- what can be seen of them ----------------------------------------------------------------------------

    def _aim(self, slots: list[int]) -> tuple[list[int], set[int]]:
        """Wait for a transaction; whom to kill, and who of them was seen to have one open."""
        deadline = time.monotonic() + AIM_S
        while True:
            at_input = [slot for slot in self._every if self._owned(slot)]
            # A worker that only owns what is behind the repartition topic opens one hardly before its commit.
            victims = slots if set(slots) & set(at_input) else at_input[:1] or slots
            seen = self._look(victims)[1]
            if (seen and seen >= set(victims) & set(at_input)) or time.monotonic() > deadline:
                return victims, seen
            time.sleep(LOOK_S)

    def _look(self, slots: list[int]) -> tuple[list[int], set[int]]:
        """The slots, and those that have a transaction open right now."""
        owned = {slot: self._owned(slot) for slot in slots}
        # What the dead left open says nothing about those that came after them.
        fresh = {tp for tp, offset in self._open().items() if offset != self._left_open.get(tp)}
        return slots, {slot for slot in slots if owned[slot] & fresh}

    def _open(self) -> dict[TopicPartition, int]:
        """Partitions of the echo with records of an open transaction, and the offset of the first."""
        # In this order: records that were there before the look at the LSO, and are not below it, are open.
        ends = self._place.admin.offsets(self._echo, "latest", "read_uncommitted")
        stable = self._place.admin.offsets(self._echo, "latest")
        return {tp: offset for tp, offset in stable.items() if offset < ends[tp]}

    def _owned(self, slot: int) -> set[TopicPartition]:
        """Partitions of the echo that only this slot writes: it has the input's keys, so the input's partitions."""
        topics = self._place.topics
        alive = [member for member in self._members(slot) if member.id not in self._dead]
        return {
            TopicPartition(topics.echo, tp.partition)
            for member in alive
            for tp in member.partitions
            if tp.topic == topics.input
        }

    def _members(self, slot: int) -> list[Member]:
        group = self._place.admin.describe_group(self._place.topics.name)
        return [member for member in group.members if member.client.endswith(f"-{slot}")]
