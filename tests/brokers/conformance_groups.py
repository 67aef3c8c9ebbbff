"""Conformance: consumer groups."""

from collections.abc import Callable, Sequence

import pytest

from streampipe.brokers.port import Broker
from streampipe.errors import Fenced, UnknownTopic
from streampipe.records import TopicPartition
from tests.brokers.helpers import Lab, Member, eventually, numbered, settle, unique, until


def partitions_of(topic: str, count: int) -> set[TopicPartition]:
    return {TopicPartition(topic, p) for p in range(count)}


class GroupConformance:
    def test_subscribing_to_an_unknown_topic_is_refused(self, lab: Lab) -> None:
        member = Member(lab.broker.consumer(unique("group")))
        with pytest.raises(UnknownTopic):
            member.consumer.subscribe([unique("nowhere")], member)
        member.close()

    def test_a_single_member_gets_every_partition_and_every_record(self, lab: Lab) -> None:
        topic = lab.topic(3)
        lab.produce(topic, *numbered("v", 300), partitions=[0, 1, 2] * 100)
        member = lab.member(unique("group"), topic)
        until([member], lambda: len(member.records) == 300, "all records are consumed")
        assert member.consumer.assignment() == partitions_of(topic, 3) == member.told("assigned")
        for p in range(3):
            assert [r.value for r in member.records if r.partition == p] == numbered("v", 300)[p::3]
            assert member.consumer.position(TopicPartition(topic, p)) == 100

    def test_a_group_without_offsets_starts_where_reset_says(self, lab: Lab) -> None:
        topic = lab.topic()
        tp = TopicPartition(topic, 0)
        lab.produce(topic, b"old")
        earliest = lab.member(unique("group"), topic, reset="earliest")
        latest = lab.member(unique("group"), topic, reset="latest")
        until([latest], lambda: latest.owned() == {tp}, "the partition is assigned")
        assert latest.consumer.position(tp) == 1
        lab.produce(topic, b"new")
        until([earliest], lambda: earliest.values() == [b"old", b"new"], "earliest reads everything")
        until([latest], lambda: latest.values(), "latest reads something")
        assert latest.values() == [b"new"]

    def test_a_successor_starts_at_the_committed_offset(self, lab: Lab) -> None:
        topic, group = lab.topic(), unique("group")
        tp = TopicPartition(topic, 0)
        lab.produce(topic, *numbered("v", 10))
        first = lab.member(group, topic)
        until([first], lambda: len(first.records) == 10, "all records are consumed")
        assert first.consumer.committed([tp]) == {}
        first.consumer.commit({tp: 4})
        assert first.consumer.committed([tp]) == {tp: 4}
        first.close()
        second = lab.member(group, topic, reset="latest")
        until([second], lambda: len(second.records) >= 6, "the rest is consumed")
        assert [r.offset for r in second.records] == [4, 5, 6, 7, 8, 9]

    def test_groups_do_not_share_offsets(self, lab: Lab) -> None:
        topic = lab.topic()
        tp = TopicPartition(topic, 0)
        one, two = lab.member(unique("group"), topic), lab.member(unique("group"), topic)
        settle([one], [tp])
        one.consumer.commit({tp: 0})
        assert two.consumer.committed([tp]) == {}

    def test_seek_drops_what_was_fetched(self, lab: Lab) -> None:
        topic = lab.topic()
        tp = TopicPartition(topic, 0)
        lab.produce(topic, *numbered("v", 10))
        lab.produce(topic, *numbered("w", 10))
        member = lab.member(unique("group"), topic)
        eventually(lambda: member.step(max_records=1), "a first record arrives")
        member.consumer.seek(tp, 15)
        assert member.consumer.position(tp) == 15
        eventually(lambda: member.step(max_records=1) == 2, "a record after the seek arrives")
        member.consumer.seek(tp, 2)
        until([member], lambda: len(member.records) >= 20, "records after the seek back arrive")
        assert [r.offset for r in member.records] == [0, 15, *range(2, 20)]

    def test_a_listener_may_seek_when_assigned(self, lab: Lab) -> None:
        topic = lab.topic()
        tp = TopicPartition(topic, 0)
        lab.produce(topic, *numbered("v", 5))
        member = lab.member(unique("group"), topic)
        member.during_assign = lambda _: member.consumer.seek(tp, 3)
        until([member], lambda: len(member.records) >= 2, "records after the seek arrive")
        assert [r.offset for r in member.records] == [3, 4]

    def test_a_paused_partition_waits_and_the_others_do_not(self, lab: Lab) -> None:
        topic = lab.topic(2)
        zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
        lab.produce(topic, *numbered("a", 20), partitions=[0, 1] * 10)
        member = lab.member(unique("group"), topic)
        settle([member], [zero, one])
        before = len([r for r in member.records if r.partition == 0])
        member.consumer.pause([zero])
        lab.produce(topic, *numbered("b", 20), partitions=[0, 1] * 10)
        until([member], lambda: member.consumer.position(one) == 20, "the other partition is consumed")
        for _ in range(5):
            member.step()
        assert len([r for r in member.records if r.partition == 0]) == before
        member.consumer.resume([zero])
        until([member], lambda: member.consumer.position(zero) == 20, "the resumed partition is consumed")
        assert [r.offset for r in member.records if r.partition == 0] == list(range(20))

    def test_members_share_the_partitions(self, lab: Lab) -> None:
        topic, group = lab.topic(4), unique("group")
        members = [lab.member(group, topic), lab.member(group, topic)]
        settle(members, partitions_of(topic, 4))
        assert sorted(len(member.owned()) for member in members) == [2, 2]
        lab.produce(topic, *numbered("v", 40), partitions=[0, 1, 2, 3] * 10)
        until(members, lambda: sum(len(m.records) for m in members) >= 40, "everything is consumed")
        for member in members:
            assert {(r.topic, r.partition) for r in member.records} == member.owned()
            assert len(member.records) == 20

    def test_a_member_that_leaves_hands_over(self, lab: Lab) -> None:
        topic, group = lab.topic(2), unique("group")
        leaves, stays = lab.member(group, topic), lab.member(group, topic)
        settle([leaves, stays], partitions_of(topic, 2))
        [tp] = leaves.owned()
        leaves.consumer.commit({tp: 0})
        leaves.close()
        until([stays], lambda: stays.owned() == partitions_of(topic, 2), "the other member took over")
        lab.produce(topic, b"0", b"1", partitions=[0, 1])
        until([stays], lambda: len(stays.records) == 2, "the records of both arrive")

    def test_a_revoked_partition_can_be_committed_and_the_new_owner_starts_there(self, lab: Lab) -> None:
        topic, group = lab.topic(2), unique("group")
        lab.produce(topic, *numbered("v", 20), partitions=[0, 1] * 10)
        first = lab.member(group, topic)

        def commit(partitions: Sequence[TopicPartition]) -> None:
            first.consumer.commit({tp: first.consumer.position(tp) for tp in partitions})

        first.during_revoke = commit
        until([first], lambda: len(first.records) == 20, "the first member consumed everything")
        second = lab.member(group, topic)
        settle([first, second], partitions_of(topic, 2))
        [moved] = second.owned()
        assert moved in first.told("revoked")
        assert second.consumer.committed([moved]) == {moved: 10}
        lab.produce(topic, b"next", partitions=[moved.partition])
        until([first, second], lambda: second.records, "the new owner goes on")
        assert [r.offset for r in second.records] == [10]

    def test_a_member_cannot_commit_what_it_no_longer_owns(self, lab: Lab) -> None:
        topic, group = lab.topic(2), unique("group")
        first = lab.member(group, topic)
        settle([first], partitions_of(topic, 2))
        second = lab.member(group, topic)
        settle([first, second], partitions_of(topic, 2))
        [moved] = second.owned()
        with pytest.raises(Fenced):
            first.consumer.commit({moved: 5})
        assert second.consumer.committed([moved]) == {}

    def test_a_member_that_does_not_poll_loses_its_partitions(self, impatient_broker: Broker) -> None:
        with Lab(impatient_broker) as lab:
            topic, group = lab.topic(), unique("group")
            tp = TopicPartition(topic, 0)
            silent = lab.member(group, topic)
            settle([silent], [tp])
            busy = lab.member(group, topic)
            until([busy], lambda: tp in busy.owned(), "the partition goes to the member that polls")
            with pytest.raises(Fenced):
                silent.consumer.commit({tp: 1})
            silent.events.clear()
            eventually(lambda: silent.step() >= 0 and silent.told("lost"), "the silent member is told")
            assert silent.events[0] == ("lost", (tp,))
            assert not silent.told("revoked")
            assert busy.consumer.committed([tp]) == {}

    def test_a_listener_that_raises_when_assigned_does_not_break_the_group(self, lab: Lab) -> None:
        topic = lab.topic(2)
        lab.produce(topic, b"0", b"1", partitions=[0, 1])
        member = lab.member(unique("group"), topic)
        member.during_assign = raise_once(member)
        with pytest.raises(KeyError, match="of the listener"):
            until([member], lambda: False, "poll raises what the listener raised")
        until([member], lambda: len(member.records) == 2, "records arrive nevertheless")
        assert member.owned() == partitions_of(topic, 2)

    def test_a_listener_that_raises_when_revoked_does_not_break_the_group(self, lab: Lab) -> None:
        topic, group = lab.topic(2), unique("group")
        first = lab.member(group, topic)
        settle([first], partitions_of(topic, 2))
        first.during_revoke = raise_once(first)
        second = lab.member(group, topic)
        with pytest.raises(KeyError, match="of the listener"):
            until([first, second], lambda: False, "poll raises what the listener raised")
        settle([first, second], partitions_of(topic, 2))

    def test_partitions_of_the_same_number_stay_together(self, lab: Lab) -> None:
        one, two, group = lab.topic(4), lab.topic(4), unique("group")
        everything = partitions_of(one, 4) | partitions_of(two, 4)
        members: list[Member] = []

        def assert_together() -> None:
            settle([m for m in members if m.open], everything)
            for member in members:
                owned = member.owned()
                assert {p for t, p in owned if t == one} == {p for t, p in owned if t == two}, sorted(owned)

        for _ in range(3):
            members.append(lab.member(group, one, two, co_partitioned=True))
            assert_together()
        members[1].close()
        assert_together()
        members.append(lab.member(group, one, two, co_partitioned=True))
        assert_together()


def raise_once(member: Member) -> Callable[[Sequence[TopicPartition]], None]:
    def fail(_: Sequence[TopicPartition]) -> None:
        member.during_assign = member.during_revoke = lambda _: None
        raise KeyError("of the listener")

    return fail
