"""Kills workers: at seeded moments, and then as soon as the victim is seen to have a transaction open.

A moment alone would leave it to luck, and to the load of the machine, whether a kill cuts anything. Every third
strike does not aim: those hit starts, restores and rebalances as well. Some of those that are started again die at a
failpoint of their own. Between kills come disturbances of other kinds.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Collection, Sequence
from fractions import Fraction

from streampipe.brokers.port import Member
from streampipe.records import TopicPartition
from tests.chaos.disturbances import Disturbances, slot_of
from tests.chaos.evidence import Kill, partitions_of
from tests.chaos.failpoints import IN_TRANSACTION, REBALANCES, TIMES
from tests.chaos.feeder import Feeder
from tests.chaos.place import Place, Scenario
from tests.chaos.workers import Workers, await_true

KILL_ALL = 0.15
BLIND = 3
"""Every so many strikes one does not aim."""
AIM_S = 5.0
BURN_S = 20.0
"""How long a failpoint is waited for."""
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
        self._points = self._shuffled(scenario.points, scenario.failpoints)
        self.points = Counter(self._points)
        self.reached: Counter[str] = Counter()
        """Deaths by failpoint."""
        self.missed: Counter[str] = Counter()
        self.disturbances = Disturbances(
            scenario,
            place,
            workers,
            feeder,
            self._members,
            lambda slot: bool(self._cut([slot], self._owned())),
            self._fell,
        )

    def run(self) -> list[Kill]:
        """The kills of the scenario, perhaps a few more with the last strike."""
        strikes = 0
        while len(self._kills) < self._scenario.kills:
            strikes += 1
            self._strike(blind=strikes % BLIND == 0)
            part = Fraction(1, 3)
            while self.disturbances.due(Fraction(len(self._kills), self._scenario.kills)):
                part = (part + 1) / 2  # something is left for each of them, however many there are
                self._feed(part)
                self.disturbances.next()
        return self._kills

    def _shuffled(self, points: Sequence[str], count: int) -> list[str]:
        """So many of the points, each as often as any other."""
        rounds = [self._chance.sample(points, len(points)) for _ in range(-(-count // len(points)))]
        return [point for some in rounds for point in some][:count]

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
        self._kill(*((slots, self._cut(slots, self._owned())) if blind else self._aim(slots)))

    def _feed(self, part: Fraction) -> None:
        """Allow this part of the records that are meant for the next kill; one more share is for the end."""
        self._feeder.allow(int(self._scenario.records * (len(self._kills) + part) / (self._scenario.kills + 1)))

    def _kill(self, slots: list[int], cut: Collection[int]) -> None:
        for slot in slots:
            self._workers.kill(slot)
        self._note(slots, cut)
        point = self._points.pop() if self._points else ""
        count = 1 if point in (*REBALANCES, "mid-restore", "in-schema-fetch") else self._chance.randint(1, 4)
        for slot in slots:
            self._workers.start(slot, f"{point}:{count}" if point and slot == slots[0] else "")
        if point:
            self._burn(slots[0], point)

    def _fell(self, slot: int) -> None:
        cut = self._cut([slot], self._owned())
        self._workers.kill(slot)
        self._note([slot], cut)

    def _note(self, slots: list[int], cut: Collection[int]) -> None:
        at_s, committed, fed = time.monotonic(), self._place.committed(), self._feeder.fed
        self._kills += [Kill(slot, committed, fed, self._scenario.records, slot in cut, at_s) for slot in slots]
        self._dead |= {member.id for member in self._members() if slot_of(member) in slots}
        self._left_open = self._open()

    def _burn(self, slot: int, point: str) -> None:
        """Wait for the slot to die at the failpoint; one that does not get there is killed."""
        self._feed(Fraction(1, 3))
        deadline, working, cut = time.monotonic() + BURN_S, False, set[int]()
        while not self._workers.died(slot):
            if time.monotonic() > deadline:
                self.missed[point] += 1
                if self.points[point] >= TIMES:
                    self._points.insert(0, point)
                self._workers.kill(slot)
                break
            if not working and self._owned()[slot]:
                working = True
                self._feed(Fraction(1))  # not before, or the other slots would have done it all
                if point == "in-revoked":
                    self.disturbances.stop(next(other for other in self._every if other != slot))
            time.sleep(4 * LOOK_S)
        else:
            self.reached[point] += 1
            cut = {slot} if point in IN_TRANSACTION else cut
        self._note([slot], cut)
        self._workers.start(slot)

    # -- what can be seen of them ----------------------------------------------------------------------------

    def _aim(self, slots: list[int]) -> tuple[list[int], set[int]]:
        """Wait for a transaction; whom to kill, and who of them was seen to have one open."""
        deadline = time.monotonic() + AIM_S
        while True:
            owned = self._owned()
            at_input = [slot for slot in self._every if owned[slot]]
            # A worker that only owns what is behind the repartition topic opens one hardly before its commit.
            victims = slots if set(slots) & set(at_input) else at_input[:1] or slots
            seen = self._cut(victims, owned)
            if (seen and seen >= set(victims) & set(at_input)) or time.monotonic() > deadline:
                return victims, seen
            time.sleep(LOOK_S)

    def _cut(self, slots: list[int], owned: dict[int, set[TopicPartition]]) -> set[int]:
        """Those of the slots that have a transaction open right now."""
        # What the dead left open says nothing about those that came after them.
        fresh = {tp for tp, offset in self._open().items() if offset != self._left_open.get(tp)}
        return {slot for slot in slots if owned[slot] & fresh}

    def _open(self) -> dict[TopicPartition, int]:
        """Partitions of the echo with records of an open transaction, and the offset of the first."""
        # In this order: records that were there before the look at the LSO, and are not below it, are open.
        ends = self._place.admin.offsets(self._echo, "latest", "read_uncommitted")
        stable = self._place.admin.offsets(self._echo, "latest")
        return {tp: offset for tp, offset in stable.items() if offset < ends[tp]}

    def _owned(self) -> dict[int, set[TopicPartition]]:
        """Partitions of the echo that only a slot writes: it has the input's keys, so the input's partitions."""
        topics = self._place.topics
        owned: dict[int, set[TopicPartition]] = {slot: set() for slot in self._every}
        for member in self._members():
            slot = slot_of(member)
            if member.id not in self._dead and slot in owned:
                inputs = [tp for tp in member.partitions if tp.topic == topics.input]
                owned[slot] |= {TopicPartition(topics.echo, tp.partition) for tp in inputs}
        return owned

    def _members(self) -> tuple[Member, ...]:
        """Of the group, dead ones until they expire."""
        return self._place.admin.describe_group(self._place.topics.name).members
