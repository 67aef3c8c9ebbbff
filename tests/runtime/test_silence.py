"""A member that hears nothing although there is something to hear is given up; one that has nothing to do is not."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from streampipe.brokers.local import LocalBroker
from streampipe.brokers.port import Admin, Broker, GroupInfo, Member
from streampipe.brokers.simulated import VirtualClock
from streampipe.errors import ClientLost
from streampipe.records import ProduceBatch, RecordBatch, TopicPartition
from streampipe.runtime import silence
from streampipe.runtime.silence import AGAIN_S, SILENT_S, Silence
from tests.runtime.fakes import Names, await_true, committed, fill, numbered, oracle, results, running
from tests.runtime.test_worker import worker_of

ONE, TWO = TopicPartition("in", 0), TopicPartition("in", 1)


class World:
    """What the broker says of the partitions and of the group."""

    def __init__(self) -> None:
        self.clock = VirtualClock(0)
        self.ends = {ONE: 5, TWO: 5}
        self.group = GroupInfo("app", "stable", (Member("id-1", (), "app-0"),))
        admin: Any = SimpleNamespace(
            offsets=lambda partitions, at: {tp: self.ends[tp] for tp in partitions},
            describe_group=lambda name: self.group,
        )  # fmt: skip
        self.silence = Silence(cast(Admin, admin), self.clock, "app", "app-0")

    def pass_by(
        self, *owned: TopicPartition, paused: tuple[TopicPartition, ...] = (), seconds: float = SILENT_S
    ) -> None:
        self.clock.sleep_s(seconds)
        self.silence.look(owned, paused, lambda _: 5)


@pytest.fixture
def world() -> World:
    return World()


def test_a_partition_that_has_more_than_was_handed_over_gives_the_client_away(world: World) -> None:
    world.ends[TWO] = 6
    world.pass_by(ONE, TWO)
    with pytest.raises(ClientLost, match=r"it is at 5 of in\[1\], which goes up to 6"):
        world.pass_by(ONE, TWO, seconds=AGAIN_S)


def test_a_record_that_is_on_its_way_during_one_look_is_no_proof(world: World) -> None:
    world.ends[TWO] = 6
    world.pass_by(ONE, TWO)
    world.ends[TWO] = 5
    world.pass_by(ONE, TWO, seconds=AGAIN_S)
    world.ends[TWO] = 6
    world.pass_by(ONE, TWO)
    world.silence.heard()
    world.pass_by(ONE, TWO, seconds=AGAIN_S)


def test_who_is_at_the_end_or_paused_may_be_silent(world: World) -> None:
    world.ends[TWO] = 9
    for _ in range(5):
        world.pass_by(ONE, TWO, paused=(TWO,))


def test_a_member_without_partitions_that_the_group_knows_may_be_silent(world: World) -> None:
    for _ in range(5):
        world.pass_by()


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ((), "does not know it"),
        ((Member("id-2", (ONE,), "app-1"),), "does not know it"),
        ((Member("id-1", (ONE,), "app-0"),), "never told of"),
    ],
    ids=["an empty group", "others only", "partitions"],
)
def test_a_member_that_the_group_does_not_know_or_knows_better_is_given_up(
    world: World, members: tuple[Member, ...], why: str
) -> None:
    world.group = GroupInfo("app", "stable", members)
    world.pass_by()
    with pytest.raises(ClientLost, match=why):
        world.pass_by(seconds=AGAIN_S)


def test_one_that_died_under_the_same_name_proves_nothing(world: World) -> None:
    world.group = GroupInfo("app", "stable", (Member("id-0", (ONE, TWO), "app-0"), Member("id-1", (), "app-0")))
    for _ in range(5):
        world.pass_by()


def test_a_group_that_is_moving_partitions_proves_nothing(world: World) -> None:
    world.group = GroupInfo("app", "reconciling", ())
    for _ in range(5):
        world.pass_by()


class Deaf:
    """A broker whose first consumer hears nothing any more once that is wanted."""

    def __init__(self, broker: Broker) -> None:
        self._broker, self._first = broker, True
        self.wanted, self.deaf = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def consumer(self, *arguments: Any, **options: Any) -> Any:
        inner = self._broker.consumer(*arguments, **options)
        if self._first:
            self._first, poll = False, inner.poll

            def hears(max_records: int, timeout_s: float) -> list[RecordBatch]:
                if not self.wanted.is_set():
                    return poll(max_records, timeout_s)
                self.deaf.set()
                time.sleep(timeout_s)
                return []

            inner.poll = hears  # type: ignore[method-assign] # that is the fault
        return inner


def test_a_worker_whose_client_went_deaf_goes_on_with_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(silence, "SILENT_S", 0.5)
    monkeypatch.setattr(silence, "AGAIN_S", 0.1)
    deaf = Deaf(LocalBroker(tmp_path / "broker.db", session_timeout_s=2.0))
    broker, names = cast(Broker, deaf), Names("app")
    names.create(broker)
    fill(broker, names.input, numbered(5, 10))
    with running(worker_of(broker, names)):
        await_true(lambda: sum(committed(broker, names.app).values()) == 50)
        deaf.wanted.set()
        assert deaf.deaf.wait(20)
        fill(broker, names.input, numbered(5, 10, start=10))
        await_true(lambda: sum(committed(broker, names.app).values()) == 100)
    assert results(broker, names) == oracle(numbered(5, 20))
    assert "hears nothing" in caplog.text


def test_who_is_at_the_end_of_what_was_committed_and_aborted_is_never_suspected(
    broker: Broker, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "SILENT_S", 0.3)
    found: list[str | None] = []
    missed = Silence._missed

    def noted(self: Silence, *given: Any) -> str | None:
        found.append(missed(self, *given))
        return found[-1]

    monkeypatch.setattr(Silence, "_missed", noted)
    names = Names(names.app, repartitioned=True)  # behind its own transactions, whose markers are the last thing there
    writer = broker.producer(f"{names.app}-writer")
    for commits in (True, False):
        writer.begin()
        writer.produce(ProduceBatch(names.input, [b"k0", b"k1"], [b"0", b"0"], [1000, 1000]))
        writer.commit() if commits else writer.abort()
    writer.close()
    with running(worker_of(broker, names)):
        await_true(lambda: sum(at > 0 for at in committed(broker, names.app).values()) >= 2, 60)
        found.clear()
        await_true(lambda: len(found) >= 5, 60)
    assert found[-4:] == [None] * 4
