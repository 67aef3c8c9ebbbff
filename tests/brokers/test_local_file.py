"""The embedded broker's file: what it refuses, what it forgets in time, what its timeouts do."""

import sqlite3
import time
from pathlib import Path

import pytest

from streampipe.brokers.local import LocalBroker, database
from streampipe.clock import SystemClock
from streampipe.errors import ConfigError, StreampipeError, TransactionAborted, Unavailable, UnknownTopic
from streampipe.records import TopicPartition
from tests.brokers.helpers import Lab, batch, numbered, settle, unique, until


class ShiftedClock(SystemClock):
    """The machine's clock, moved forward by `ahead_ms`."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"these are my notes\n" * 100)
    with pytest.raises(ConfigError, match=r"notes\.txt.*not a readable SQLite file"):
        LocalBroker(path)
    assert path.read_bytes() == b"these are my notes\n" * 100


def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (a)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="a SQLite file of something else"):
        LocalBroker(path)
    assert path.read_bytes() == before


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    LocalBroker(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="another version"):
        LocalBroker(path)


def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "broker.db"
    with Lab(LocalBroker(path)) as lab:
        topic = lab.topic()
        lab.produce(topic, *numbered("v", 5000))
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = b"\xff" * (len(damaged) - 4096)
    path.write_bytes(damaged)
    with pytest.raises(ConfigError, match="restore it or move it away"):
        LocalBroker(path).admin().topics()


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="check the path"):
        LocalBroker(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot create its folder"):
        LocalBroker(tmp_path / "file" / "broker.db")


def test_a_file_that_stays_locked_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    path = tmp_path / "broker.db"
    with Lab(LocalBroker(path)) as lab:
        topic = lab.topic()
        producer = lab.producer()
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked by another process"):
            producer.produce(batch(topic, b"refused"))
        holder.execute("ROLLBACK")
        holder.close()
        producer.produce(batch(topic, b"taken"))
        assert [record.value for record in lab.read(TopicPartition(topic, 0))] == [b"taken"]


def test_a_long_handler_keeps_its_membership(tmp_path: Path) -> None:
    with Lab(LocalBroker(tmp_path / "broker.db", session_timeout_s=0.4)) as lab:
        topic, group = lab.topic(), unique("group")
        tp = TopicPartition(topic, 0)
        busy = lab.member(group, topic)
        settle([busy], [tp])
        other = lab.member(group, topic)
        three_sessions = time.monotonic() + 1.2
        until([other], lambda: time.monotonic() > three_sessions, "three sessions pass without a poll")
        assert other.owned() == set()
        busy.consumer.commit({tp: 1})


def test_a_transaction_past_its_timeout_cannot_commit_and_the_next_one_can(tmp_path: Path) -> None:
    clock = ShiftedClock()
    with Lab(LocalBroker(tmp_path / "broker.db", clock=clock)) as lab:
        topic = lab.topic()
        tp = TopicPartition(topic, 0)
        producer = lab.producer("slow")
        producer.begin()
        producer.produce(batch(topic, b"late"))
        clock.ahead_ms += 14_000
        assert lab.admin.offsets([tp], "latest") == {tp: 0}
        clock.ahead_ms += 2_000
        assert lab.admin.offsets([tp], "latest") == {tp: 1}
        with pytest.raises(TransactionAborted, match="timed out"):
            producer.commit()
        producer.abort()
        producer.begin()
        producer.produce(batch(topic, b"in time"))
        producer.commit()
        assert [record.value for record in lab.read(tp)] == [b"in time"]


def test_old_records_go_when_retention_is_set_and_only_then(tmp_path: Path) -> None:
    with Lab(LocalBroker(tmp_path / "broker.db")) as lab:
        brief, compacted, forever = (
            lab.topic(1, {"retention.ms": "60000"}),
            lab.topic(1, {"retention.ms": "60000", "cleanup.policy": "compact"}),
            lab.topic(1),
        )
        now = SystemClock().now_ms()
        for topic in (brief, compacted, forever):
            lab.produce(topic, b"old", b"older", timestamps=[now - 61_000, now - 90_000])
            lab.produce(topic, b"new")
        first = [TopicPartition(topic, 0) for topic in (brief, compacted, forever)]
        assert list(lab.admin.offsets(first, "earliest").values()) == [2, 0, 0]
        assert [record.value for record in lab.read(first[0])] == [b"new"]
        assert len(lab.read(first[1])) == len(lab.read(first[2])) == 3


def test_retention_spares_what_an_open_transaction_holds_back(tmp_path: Path) -> None:
    with Lab(LocalBroker(tmp_path / "broker.db")) as lab:
        topic = lab.topic(1, {"retention.ms": "60000"})
        tp = TopicPartition(topic, 0)
        producer = lab.producer("open")
        producer.begin()
        producer.produce(batch(topic, b"old", timestamps=[1]))
        lab.produce(topic, b"old too", timestamps=[2])
        assert lab.admin.offsets([tp], "earliest") == {tp: 0}
        producer.commit()
        assert [record.value for record in lab.read(tp)] == [b"old", b"old too"]


def test_a_topic_made_anew_is_lost_and_assigned_again(tmp_path: Path) -> None:
    with Lab(LocalBroker(tmp_path / "broker.db")) as lab:
        topic = lab.topic()
        tp = TopicPartition(topic, 0)
        lab.produce(topic, b"old")
        member = lab.member(unique("group"), topic)
        reader = lab.reader(tp)
        until([member], lambda: member.records, "the old record arrives")
        lab.admin.delete_topic(topic)
        lab.admin.create_topic(topic, 1)
        lab.produce(topic, b"new")
        until([member], lambda: len(member.records) == 2, "the new record arrives")
        assert [event for event, _ in member.events] == ["assigned", "lost", "assigned"]
        assert [(r.offset, r.value) for r in member.records] == [(0, b"old"), (0, b"new")]
        with pytest.raises(UnknownTopic):
            reader.poll(1, 0.0)


def test_a_deleted_topic_is_lost_and_the_other_goes_on(tmp_path: Path) -> None:
    with Lab(LocalBroker(tmp_path / "broker.db")) as lab:
        gone, kept = lab.topic(), lab.topic()
        member = lab.member(unique("group"), gone, kept)
        settle([member], [TopicPartition(gone, 0), TopicPartition(kept, 0)])
        lab.admin.delete_topic(gone)
        lab.produce(kept, b"v")
        until([member], lambda: member.records, "the record arrives")
        assert member.told("lost") == {TopicPartition(gone, 0)}
        assert member.owned() == {TopicPartition(kept, 0)}


def test_changing_the_subscription_moves_what_changed_alone(tmp_path: Path) -> None:
    with Lab(LocalBroker(tmp_path / "broker.db")) as lab:
        one, two, three = (TopicPartition(lab.topic(), 0) for _ in range(3))
        member = lab.member(unique("group"), one.topic, two.topic)
        settle([member], [one, two])
        member.consumer.subscribe([two.topic, three.topic], member)
        settle([member], [two, three])
        assert member.events[1:] == [("revoked", (one,)), ("assigned", (three,))]


def test_a_member_that_left_before_it_took_over_moves_nothing(tmp_path: Path) -> None:
    with Lab(LocalBroker(tmp_path / "broker.db")) as lab:
        topic, group = lab.topic(3), unique("group")
        everything = {TopicPartition(topic, p) for p in range(3)}
        # Ids begin with the client's name, and ties go to the first id: the one that must not gain here.
        fuller = lab.member(group, topic, client_id="z")
        settle([fuller], everything)
        other = lab.member(group, topic, client_id="a")
        settle([fuller, other], everything)
        fuller.events.clear()
        lab.member(group, topic, client_id="m").close()
        for _ in range(5):
            fuller.step()
            other.step()
        assert (len(fuller.owned()), fuller.events) == (2, [])


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "x" * 250])
def test_a_name_that_kafka_would_refuse_is_refused(tmp_path: Path, name: str) -> None:
    with Lab(LocalBroker(tmp_path / "broker.db")) as lab, pytest.raises(ConfigError, match="topic"):
        lab.admin.create_topic(name, 1)


@pytest.mark.parametrize(("partitions", "config"), [(0, {}), (1, {"retention.ms": "soon"})])
def test_a_topic_that_cannot_be_is_refused(tmp_path: Path, partitions: int, config: dict[str, str]) -> None:
    with Lab(LocalBroker(tmp_path / "broker.db")) as lab, pytest.raises(ConfigError, match="topic"):
        lab.admin.create_topic("t", partitions, config)


def test_a_partition_that_does_not_exist_fails_the_flush(tmp_path: Path) -> None:
    with Lab(LocalBroker(tmp_path / "broker.db")) as lab:
        topic = lab.topic(2)
        producer = lab.producer()
        producer.produce(batch(topic, b"v", partitions=[2]))
        with pytest.raises(StreampipeError, match="partitions 0 to 1"):
            producer.flush()
