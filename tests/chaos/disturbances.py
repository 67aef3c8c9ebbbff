"""What happens to workers and brokers besides kill -9 alone, in a seeded order: zombies, stops, wipes, restarts."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

from streampipe.brokers.port import Member
from streampipe.records import ProduceBatch, TopicPartition
from tests.chaos.feeder import Feeder
from tests.chaos.place import Place, Scenario
from tests.chaos.wipes import wipe
from tests.chaos.workers import Workers, await_true

STOP_S = 40.0
AIM_S = 5.0
TAKEN_OVER_S = 3.0
"""So long after the end of a member others have had what it had."""
RESTART_S = 150.0
"""For as long as it may take until a client that a starting broker led astray is replaced, one after the other."""


class Disturbances:
    """Those of a scenario. `members` are those of the group, dead ones until they expire."""

    def __init__(
        self,
        scenario: Scenario,
        place: Place,
        workers: Workers,
        feeder: Feeder,
        members: Callable[[], tuple[Member, ...]],
        in_transaction: Callable[[int], bool],
        kill: Callable[[int], None],
    ) -> None:
        self._scenario, self._place, self._workers, self._feeder = scenario, place, workers, feeder
        self._members: Callable[[int], list[Member]] = lambda slot: [m for m in members() if slot_of(m) == slot]
        self._in_transaction, self._kill = in_transaction, kill
        self._chance = random.Random(f"{scenario.seed}-disturbances")
        kinds = {
            self.zombie: scenario.zombies, self.stop: scenario.stops, self.visitor: scenario.visitors,
            self.restart: scenario.restarts, self.stranger: scenario.strangers, self.wipe: scenario.wipes,
        }  # fmt: skip
        self._planned = [kind for kind, count in kinds.items() for _ in range(count)]
        self._chance.shuffle(self._planned)
        self._next = 0
        self.planned = Counter(kind.__name__ for kind in self._planned)
        self.done: Counter[str] = Counter()
        self.restarts_s: list[float] = []
        """When, by the monotonic clock."""
        self.wiped: Counter[str] = Counter()
        """Stores by what was done to them between two workers."""

    def due(self, part: Fraction) -> bool:
        """Whether another one should have happened when this part of the kills is done."""
        return self._next < len(self._planned) and self._next < len(self._planned) * part

    def next(self) -> None:
        """The next one, through to its end."""
        what = self._planned[self._next]
        self._next += 1
        what(self._chance.randrange(self._scenario.slots))
        self.done[what.__name__] += 1

    def zombie(self, slot: int) -> None:
        """A worker is frozen until the group has given it up, and then goes on as if nothing had been.

        In the middle of a transaction, if it gets to one: that is what it must not end. Every other time between the
        last record of it and its offsets.
        """
        if self.done["zombie"] % 2 == 0:
            self._workers.freeze(slot, AIM_S)
        else:
            self._aim(slot)
            self._workers.signal(slot, signal.SIGSTOP)
        try:
            self._await_end_of({member.id for member in self._members(slot)}, slot)
        finally:
            self._workers.signal(slot, signal.SIGCONT)
        self._await(lambda: self._goes_on(slot), "return of the zombie")

    def _goes_on(self, slot: int) -> bool:
        self._workers.signal(slot, signal.SIGCONT)  # it may have frozen itself after the last one
        return bool(self._members(slot))

    def _aim(self, slot: int) -> None:
        deadline = time.monotonic() + AIM_S
        while not self._in_transaction(slot) and time.monotonic() < deadline:
            time.sleep(0.005)

    def _await_end_of(self, old: set[str], slot: int) -> None:
        self._await(lambda: not old & {member.id for member in self._members(slot)}, "end of the member")

    def stranger(self, slot: int) -> None:
        """A worker is killed while a transaction that others have nothing to do with lies open in all changelogs.

        What is committed above it is beyond the last stable offset, and has to be restored all the same (KAFKA-10167).
        """
        place, partitions = self._place, list(range(self._scenario.partitions))
        with closing(place.broker.producer(f"{place.topics.name}-stranger")) as producer:
            producer.begin()
            for topic in place.topics.changelogs:
                never = [b"never committed"] * len(partitions)
                producer.produce(ProduceBatch(topic, never, never, None, partitions))
            producer.flush()
            before = place.committed()
            self._await(lambda: place.committed() > before, "progress beside a transaction in the changelogs")
            self._aim(slot)
            old = {member.id for member in self._members(slot)}
            self._kill(slot)
            self._workers.start(slot)
            self._await_end_of(old, slot)
            time.sleep(TAKEN_OVER_S)

    def wipe(self, slot: int) -> None:
        """A worker is killed, the others are stopped in order; of what they kept much is missing when they start again.

        All of them, so that nobody takes on what was kept before something is missing of it.
        """
        slots = range(self._scenario.slots)
        self._await(lambda: all(map(self._partitions, slots)), "partitions of everybody")
        before = self._place.committed()
        self._await(lambda: self._place.committed() > before, "progress before state is lost")
        self._aim(slot)
        self._kill(slot)
        for other in slots:
            if other != slot:
                self._workers.stop(other, STOP_S)
        self.wiped += wipe(Path(self._place.environment["STREAMPIPE_STATE_DIR"]), self._chance)
        self._workers.start_all()

    def stop(self, slot: int) -> None:
        """A worker is stopped in order, and started again."""
        self._workers.stop(slot, STOP_S)
        self._workers.start(slot)

    def visitor(self, _: int) -> None:
        """One more worker joins, gets partitions and something to do if there is anything, and leaves in order."""
        slot = self._scenario.slots
        self._workers.start(slot)
        self._await(lambda: bool(self._partitions(slot)), "partitions of the visitor")
        before = self._place.admin.committed(self._place.topics.name)
        deadline = time.monotonic() + AIM_S
        while time.monotonic() < deadline:
            now = self._place.admin.committed(self._place.topics.name)
            if any(now.get(tp, 0) > before.get(tp, 0) for tp in self._partitions(slot)):
                break
            time.sleep(0.05)
        self._workers.stop(slot, STOP_S)

    def _partitions(self, slot: int) -> set[TopicPartition]:
        return {tp for member in self._members(slot) for tp in member.partitions}

    def restart(self, _: int) -> None:
        """Kafka is stopped and started again; every other time it is killed."""
        assert self._scenario.stack is not None, "only a stack of its own can be restarted"
        self.restarts_s.append(time.monotonic())
        self._scenario.stack.restart_kafka(kill=self.done["restart"] % 2 == 1)
        fed = self._feeder.fed

        def caught_up() -> bool:
            self._workers.revive()  # one that was killed just before may have met no Kafka
            return self._place.committed() >= fed

        try:
            self._await(caught_up, "commit of what was fed before the restart", RESTART_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._place.picture()}") from None

    def _await(self, condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
        await_true(condition, what, self._workers, within_s)


def slot_of(member: Member) -> int:
    """Of a worker."""
    return int(member.client.rpartition("-")[2])
