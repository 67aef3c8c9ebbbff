"""Conformance: the admin client."""

import pytest

from streampipe.errors import ConfigError, UnknownTopic
from streampipe.records import TopicPartition
from tests.brokers.helpers import Lab, eventually, numbered, settle, unique


class AdminConformance:
    def test_a_created_topic_is_listed_and_described(self, lab: Lab) -> None:
        topic = lab.topic(3, {"cleanup.policy": "compact"})
        assert lab.admin.topics()[topic] == 3
        info = lab.admin.describe_topic(topic)
        assert (info.name, info.partitions, dict(info.config)) == (topic, 3, {"cleanup.policy": "compact"})
        assert dict(lab.admin.describe_topic(lab.topic()).config) == {}

    def test_creating_a_topic_again_changes_nothing(self, lab: Lab) -> None:
        topic = lab.topic(2)
        lab.produce(topic, b"kept")
        assert lab.admin.create_topic(topic, 5) is False
        assert lab.admin.topics()[topic] == 2
        assert len(lab.read(TopicPartition(topic, 0))) == 1

    def test_a_deleted_topic_is_gone_with_records_and_offsets(self, lab: Lab) -> None:
        topic, kept, group = lab.topic(), lab.topic(), unique("group")
        tp = TopicPartition(topic, 0)
        lab.produce(topic, b"old")
        lab.admin.set_committed(group, {tp: 1, TopicPartition(kept, 0): 0})
        lab.admin.delete_topic(topic)
        eventually(lambda: topic not in lab.admin.topics(), "the topic is gone")
        with pytest.raises(UnknownTopic):
            lab.admin.describe_topic(topic)
        eventually(lambda: lab.admin.committed(group) == {TopicPartition(kept, 0): 0}, "its offsets are gone")
        eventually(lambda: lab.admin.create_topic(topic, 1), "the name can be used again")
        lab.produce(topic, b"new")
        assert [r.value for r in lab.read(tp)] == [b"new"]

    def test_unknown_topics_are_refused_by_name(self, lab: Lab) -> None:
        missing = unique("nowhere")
        with pytest.raises(UnknownTopic, match=missing):
            lab.admin.describe_topic(missing)
        with pytest.raises(UnknownTopic, match=missing):
            lab.admin.delete_topic(missing)
        with pytest.raises(UnknownTopic, match=missing):
            lab.admin.offsets([TopicPartition(missing, 0)], "latest")

    def test_offsets_earliest_latest_and_at_a_time(self, lab: Lab) -> None:
        topic = lab.topic(2)
        full, empty = TopicPartition(topic, 0), TopicPartition(topic, 1)
        base = 1_700_000_000_000
        lab.produce(topic, *numbered("v", 5), timestamps=[base + t for t in (100, 200, 200, 150, 300)])
        both = [full, empty]
        assert lab.admin.offsets(both, "earliest") == {full: 0, empty: 0}
        assert lab.admin.offsets(both, "latest") == {full: 5, empty: 0}
        for time_ms, offset in ((0, 0), (100, 0), (101, 1), (150, 1), (200, 1), (201, 4), (300, 4), (301, 5)):
            assert lab.admin.offsets(both, base + time_ms) == {full: offset, empty: 0}, time_ms

    def test_offsets_of_a_group_can_be_set_while_nobody_is_in_it(self, lab: Lab) -> None:
        topic, group = lab.topic(2), unique("group")
        zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
        lab.produce(topic, *numbered("v", 10), partitions=[0, 1] * 5)
        lab.admin.set_committed(group, {zero: 4, one: 2})
        lab.admin.set_committed(group, {zero: 3})
        assert lab.admin.committed(group) == {zero: 3, one: 2}
        member = lab.member(group, topic)
        settle([member], [zero, one])
        assert {tp: member.consumer.position(tp) for tp in (zero, one)} != {zero: 0, one: 0}
        eventually(lambda: member.step() >= 5, "the rest arrives")
        assert sorted((r.partition, r.offset) for r in member.records) == [(0, 3), (0, 4), (1, 2), (1, 3), (1, 4)]
        with pytest.raises(ConfigError, match=group):
            lab.admin.set_committed(group, {zero: 0})
        member.close()
        eventually(lambda: not lab.admin.describe_group(group).members, "the member left")
        lab.admin.set_committed(group, {zero: 0})
        assert lab.admin.committed(group)[zero] == 0

    def test_a_group_is_described_with_its_members(self, lab: Lab) -> None:
        topic, group = lab.topic(2), unique("group")
        both = {TopicPartition(topic, 0), TopicPartition(topic, 1)}
        members = [lab.member(group, topic, client_id="one"), lab.member(group, topic, client_id="two")]
        settle(members, both)

        def stable() -> bool:
            for member in members:
                member.step()
            return lab.admin.describe_group(group).state == "stable"

        eventually(stable, "the group is stable")
        info = lab.admin.describe_group(group)
        assert info.name == group
        assert group in lab.admin.groups()
        described = {member.client: set(member.partitions) for member in info.members}
        assert described == {"one": members[0].owned(), "two": members[1].owned()}
        assert len({member.id for member in info.members}) == 2
        members[0].consumer.commit(dict.fromkeys(members[0].owned(), 0))
        for member in members:
            member.close()
        eventually(lambda: lab.admin.describe_group(group).state == "empty", "the group is empty")
        assert lab.admin.describe_group(group).members == ()

    def test_a_group_nobody_knows_is_dead(self, lab: Lab) -> None:
        group = unique("group")
        info = lab.admin.describe_group(group)
        assert (info.state, info.members, lab.admin.committed(group)) == ("dead", (), {})
        assert group not in lab.admin.groups()
        lab.admin.delete_group(group)

    def test_a_deleted_group_has_forgotten_its_offsets(self, lab: Lab) -> None:
        topic, group = lab.topic(), unique("group")
        tp = TopicPartition(topic, 0)
        lab.admin.set_committed(group, {tp: 0})
        assert group in lab.admin.groups()
        lab.admin.delete_group(group)
        assert lab.admin.committed(group) == {}
        eventually(lambda: group not in lab.admin.groups(), "the group is gone")
