"""Conformance: transactions, isolation and fencing."""

import threading

import pytest

from streampipe.brokers.port import Broker
from streampipe.errors import Fenced, TransactionAborted
from streampipe.records import TopicPartition
from tests.brokers.helpers import Lab, Member, batch, eventually, read_to, settle, unique, until


def values(lab: Lab, topic: str) -> list[bytes | None]:
    return [record.value for record in lab.read(TopicPartition(topic, 0))]


class TransactionConformance:
    def test_a_commit_shows_records_of_all_topics_and_the_offsets_at_once(self, lab: Lab) -> None:
        source, one, two = lab.topic(), lab.topic(), lab.topic()
        group, tp = unique("group"), TopicPartition(source, 0)
        lab.produce(source, b"1", b"2", b"3")
        member = lab.member(group, source)
        until([member], lambda: len(member.records) == 3, "the input is consumed")
        producer = lab.producer(unique("tx"))
        producer.begin()
        producer.produce(batch(one, b"a", b"b"))
        producer.produce(batch(two, b"c"))
        producer.send_offsets({tp: 3}, member.consumer.group_metadata())
        assert (values(lab, one), values(lab, two), lab.admin.committed(group)) == ([], [], {})
        producer.commit()
        # the broker marks the transaction's partitions a moment after it has decided
        eventually(lambda: (values(lab, one), values(lab, two)) == ([b"a", b"b"], [b"c"]), "the commit is seen")
        assert member.consumer.committed([tp]) == {tp: 3}
        assert lab.admin.committed(group) == {tp: 3}

    def test_an_aborted_transaction_leaves_no_record_and_no_offset(self, lab: Lab) -> None:
        source, sink = lab.topic(), lab.topic()
        group, tp = unique("group"), TopicPartition(source, 0)
        member = lab.member(group, source)
        settle([member], [tp])
        producer = lab.producer(unique("tx"))
        producer.begin()
        producer.produce(batch(sink, b"gone"))
        producer.flush()
        producer.send_offsets({tp: 1}, member.consumer.group_metadata())
        producer.abort()
        producer.begin()
        producer.produce(batch(sink, b"kept"))
        producer.commit()
        eventually(lambda: values(lab, sink) == [b"kept"], "the commit is seen, and nothing else")
        assert member.consumer.committed([tp]) == {}

    def test_several_transactions_follow_each_other(self, lab: Lab) -> None:
        sink = lab.topic()
        producer = lab.producer(unique("tx"))
        for value in (b"1", b"2", b"3"):
            producer.begin()
            producer.produce(batch(sink, value))
            producer.commit()
        producer.begin()
        producer.commit()
        eventually(lambda: values(lab, sink) == [b"1", b"2", b"3"], "the commits are seen")

    def test_readers_stop_at_an_open_transaction_unless_uncommitted(self, lab: Lab) -> None:
        topic = lab.topic()
        tp = TopicPartition(topic, 0)
        lab.produce(topic, b"before")
        producer = lab.producer(unique("tx"))
        producer.begin()
        producer.produce(batch(topic, b"open"))
        producer.flush()
        lab.produce(topic, b"after")
        assert lab.admin.offsets([tp], "latest") == {tp: 1}
        assert lab.admin.offsets([tp], "latest", "read_uncommitted") == {tp: 3}
        reader = lab.reader(tp)
        assert [r.value for r in read_to(reader, {tp: 1})] == [b"before"]
        assert reader.poll(10, 0.3) == []
        uncommitted = lab.read(tp, isolation="read_uncommitted")
        assert [r.value for r in uncommitted] == [b"before", b"open", b"after"]
        producer.commit()
        assert [r.value for r in read_to(reader, {tp: 3})] == [b"open", b"after"]

    def test_an_open_transaction_holds_back_only_its_own_partitions(self, lab: Lab) -> None:
        topic = lab.topic(2)
        producer = lab.producer(unique("tx"))
        producer.begin()
        producer.produce(batch(topic, b"open"))
        producer.flush()
        lab.produce(topic, b"free", partitions=[1])
        assert [r.value for r in lab.read(TopicPartition(topic, 0), TopicPartition(topic, 1))] == [b"free"]

    def test_position_moves_past_aborted_records_to_the_end(self, lab: Lab) -> None:
        topic = lab.topic()
        tp = TopicPartition(topic, 0)
        lab.produce(topic, b"before")
        producer = lab.producer(unique("tx"))
        producer.begin()
        producer.produce(batch(topic, b"x", b"y"))
        producer.flush()
        producer.abort()
        eventually(lambda: lab.admin.offsets([tp], "latest")[tp] >= 3, "the abort is written")
        end = lab.admin.offsets([tp], "latest", "read_uncommitted")
        assert [r.value for r in read_to(lab.reader(tp), end)] == [b"before"]

    def test_a_newer_producer_of_the_id_fences_the_older(self, lab: Lab) -> None:
        topic, transactional_id = lab.topic(), unique("tx")
        old = lab.producer(transactional_id)
        old.begin()
        old.produce(batch(topic, b"old"))
        old.flush()
        new = lab.producer(transactional_id)
        with pytest.raises(Fenced):
            old.commit()
        new.begin()
        new.produce(batch(topic, b"new"))
        new.commit()
        assert values(lab, topic) == [b"new"]

    def test_producers_of_different_ids_do_not_disturb_each_other(self, lab: Lab) -> None:
        topic = lab.topic()
        one, two = lab.producer(unique("tx")), lab.producer(unique("tx"))
        one.begin()
        one.produce(batch(topic, b"1"))
        two.begin()
        two.produce(batch(topic, b"2"))
        two.commit()
        one.commit()
        assert sorted(value or b"" for value in values(lab, topic)) == [b"1", b"2"]

    def test_closing_a_producer_aborts_what_is_open(self, lab: Lab) -> None:
        topic = lab.topic()
        producer = lab.broker.producer(unique("tx"))
        producer.begin()
        producer.produce(batch(topic, b"open"))
        producer.flush()
        producer.close()
        lab.produce(topic, b"after")
        eventually(lambda: values(lab, topic) == [b"after"], "readers pass the closed producer's transaction")

    def test_a_failed_record_fails_the_commit(self, lab: Lab) -> None:
        topic = lab.topic()
        producer = lab.producer(unique("tx"))
        producer.begin()
        producer.produce(batch(topic, b"fine"))
        producer.produce(batch(topic, b"x" * (3 << 20)))
        with pytest.raises(TransactionAborted):
            producer.commit()
        producer.abort()
        assert values(lab, topic) == []

    def test_offsets_of_a_member_that_left_are_fenced(self, lab: Lab) -> None:
        source, group = lab.topic(2), unique("group")
        both = {TopicPartition(source, 0), TopicPartition(source, 1)}
        left, stays = lab.member(group, source), lab.member(group, source)
        settle([left, stays], both)
        token, [tp] = left.consumer.group_metadata(), left.owned()
        left.close()
        until([stays], lambda: stays.owned() == both, "the other member took over")
        assert_fenced(lab, {tp: 1}, token)
        assert stays.consumer.committed([tp]) == {}

    def test_offsets_with_a_token_of_an_older_generation_are_fenced(self, lab: Lab) -> None:
        source, group = lab.topic(2), unique("group")
        both = {TopicPartition(source, 0), TopicPartition(source, 1)}
        first = lab.member(group, source)
        settle([first], both)
        token = first.consumer.group_metadata()
        second = lab.member(group, source)
        settle([first, second], both)
        [moved] = second.owned()
        assert_fenced(lab, {moved: 1}, token)

    def test_an_old_token_stays_fenced_when_the_partition_came_back(self, lab: Lab) -> None:
        source, group = lab.topic(2), unique("group")
        both = {TopicPartition(source, 0), TopicPartition(source, 1)}
        first = lab.member(group, source)
        settle([first], both)
        token = first.consumer.group_metadata()
        second = lab.member(group, source)
        settle([first, second], both)
        [moved] = second.owned()
        second.close()
        until([first], lambda: first.owned() == both, "the partition came back")
        assert_fenced(lab, {moved: 1}, token)

    def test_a_new_owner_waits_for_the_offsets_of_an_open_transaction(self, lab: Lab) -> None:
        source, group = lab.topic(), unique("group")
        tp = TopicPartition(source, 0)
        lab.produce(source, b"0", b"1", b"2", b"3")
        left = lab.member(group, source)
        until([left], lambda: len(left.records) == 4, "the input is consumed")
        producer = lab.producer(unique("tx"))
        producer.begin()
        producer.send_offsets({tp: 3}, left.consumer.group_metadata())
        left.close()
        owner = lab.member(group, source)
        for _ in range(10):
            owner.step()
        assert owner.records == []
        producer.commit()
        until([owner], lambda: owner.records, "the rest arrives")
        assert [record.offset for record in owner.records] == [3]

    def test_offsets_of_a_member_that_never_polled_are_fenced(self, lab: Lab) -> None:
        source, group = lab.topic(), unique("group")
        tp = TopicPartition(source, 0)
        owner = lab.member(group, source)
        settle([owner], [tp])
        stranger = Member(lab.broker.consumer(group))
        assert_fenced(lab, {tp: 1}, stranger.consumer.group_metadata())
        stranger.close()

    def test_offsets_that_were_sent_before_those_the_group_has_come_too_late(self, lab: Lab) -> None:
        source, group = lab.topic(), unique("group")
        tp = TopicPartition(source, 0)
        member = lab.member(group, source)
        settle([member], [tp])
        first, second = lab.producer(unique("tx")), lab.producer(unique("tx"))
        for producer, offset in ((first, 5), (second, 3)):
            producer.begin()
            producer.send_offsets({tp: offset}, member.consumer.group_metadata())
        second.commit()
        first.commit()
        eventually(lambda: lab.admin.committed(group) == {tp: 3}, "the offset sent last is the group's")
        first.begin()
        first.send_offsets({tp: 4}, member.consumer.group_metadata())
        first.commit()
        eventually(lambda: lab.admin.committed(group) == {tp: 4}, "a later one counts again")

    def test_committed_waits_for_pending_transactional_offsets(self, lab: Lab, broker: Broker) -> None:
        source, group = lab.topic(), unique("group")
        tp = TopicPartition(source, 0)
        member = lab.member(group, source)
        settle([member], [tp])
        producer = lab.producer(unique("tx"))
        producer.begin()
        producer.send_offsets({tp: 7}, member.consumer.group_metadata())
        answers = []

        def ask() -> None:
            consumer = broker.consumer(group)
            answers.append(consumer.committed([tp]))
            consumer.close()

        asking = threading.Thread(target=ask)
        asking.start()
        asking.join(timeout=0.5)
        assert asking.is_alive(), f"answered {answers} while the transaction was open"
        producer.commit()
        asking.join(timeout=30)
        assert answers == [{tp: 7}]


def assert_fenced(lab: Lab, offsets: dict[TopicPartition, int], token: object) -> None:
    producer = lab.producer(unique("tx"))
    producer.begin()
    with pytest.raises(Fenced):
        producer.send_offsets(offsets, token)
    producer.abort()
