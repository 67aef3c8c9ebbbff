"""Consumer groups: membership, who owns what, and committed offsets, all of it rows in the file.

There is no coordinator process: whoever notices a change works out the new targets inside its own write. A
partition has an owner, who may read and commit it, and a target, who should. The owner lets go first (it sees a
target that is not itself, has its listener finish, and releases), the target takes what nobody owns; a dead
member's partitions are freed when its session ends. `generation` counts every such change, which is how members
notice them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from streampipe.brokers.local.assignor import assign
from streampipe.brokers.local.database import Database
from streampipe.brokers.port import GroupInfo, Member, Offsets
from streampipe.errors import ConfigError, Fenced
from streampipe.records import TopicPartition


@dataclass(frozen=True, slots=True)
class Membership:
    """A member as of a generation; what `Consumer.group_metadata` hands to `Producer.send_offsets`."""

    group: str
    member: str
    generation: int


@dataclass(slots=True)
class View:
    """What a member owns, and which of it it should let go."""

    generation: int
    owned: dict[TopicPartition, int]
    """With the generation since which it has been this member's without a break."""
    leaving: set[TopicPartition]


def join(db: Database, group: str, client: str, topics: Collection[str], co_partitioned: bool, deadline_ms: int) -> str:
    """Inside a write: a new member and the targets that follow; its id."""
    member = f"{client or 'streampipe'}-{uuid.uuid4()}"
    row = (member, group, client, json.dumps(sorted(topics)), int(co_partitioned), deadline_ms)
    db.execute("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?)", *row)
    rebalance(db, group)
    return member


def resubscribe(db: Database, group: str, member: str, topics: Collection[str]) -> None:
    """Inside a write: other topics for a member."""
    db.execute("UPDATE members SET topics = ? WHERE id = ?", json.dumps(sorted(topics)), member)
    rebalance(db, group)


def heartbeat(db: Database, member: str, deadline_ms: int) -> bool:
    """Prolong a member's session; False when it is over already."""
    return db.execute("UPDATE members SET deadline_ms = ? WHERE id = ?", deadline_ms, member) > 0


def leave(db: Database, group: str, member: str) -> None:
    """Inside a write: end a membership and hand on what it owned."""
    if db.execute("DELETE FROM members WHERE id = ?", member):
        db.execute("UPDATE assignments SET owner = NULL WHERE group_name = ? AND owner = ?", group, member)
        db.execute("UPDATE assignments SET target = NULL WHERE group_name = ? AND target = ?", group, member)
        rebalance(db, group)


def changed(db: Database, seen: Membership, now_ms: int) -> bool:
    """Whether anything happened in the group since `seen`, or somebody's session ran out."""
    sql = """SELECT generation, EXISTS (SELECT 1 FROM members WHERE group_name = ?1 AND deadline_ms < ?2),
                    EXISTS (SELECT 1 FROM members WHERE id = ?3)
             FROM groups WHERE name = ?1"""
    return db.query(sql, seen.group, now_ms, seen.member) != [(seen.generation, 0, 1)]


def expire(db: Database, now_ms: int) -> None:
    """Inside a write: end the sessions that ran out, in every group."""
    sql = "SELECT group_name, id FROM members WHERE deadline_ms < ?"
    for group, member in db.query(sql, now_ms):
        leave(db, group, member)


def rebalance(db: Database, group: str) -> None:
    """Inside a write: work out the targets of the group's members as they are now."""
    sql = "SELECT id, topics, co_partitioned FROM members WHERE group_name = ?"
    members = db.query(sql, group)
    subscriptions = {member: json.loads(topics) for member, topics, _ in members}
    wanted = json.dumps(sorted({topic for topics in subscriptions.values() for topic in topics}))
    sql = "SELECT name, partitions FROM topics WHERE name IN (SELECT value FROM json_each(?))"
    partitions: dict[str, int] = dict(db.query(sql, wanted))
    sql = "SELECT topic, partition, coalesce(target, owner) FROM assignments WHERE group_name = ?"
    current = {TopicPartition(topic, p): member for topic, p, member in db.query(sql, group)}
    targets = assign(subscriptions, partitions, current, any(co for _, _, co in members))
    db.execute("UPDATE assignments SET target = NULL WHERE group_name = ?", group)
    sql = """INSERT INTO assignments (group_name, topic, partition, target) VALUES (?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET target = excluded.target"""
    db.execute_many(sql, [(group, tp.topic, tp.partition, member) for tp, member in targets.items()])
    _settle(db, group)


def _settle(db: Database, group: str) -> None:
    db.execute("DELETE FROM assignments WHERE group_name = ? AND owner IS NULL AND target IS NULL", group)
    db.execute("INSERT INTO groups VALUES (?, 1) ON CONFLICT DO UPDATE SET generation = generation + 1", group)


def rebalance_subscribers(db: Database, topic: str) -> None:
    """Inside a write: a topic came or went; what anybody owned of it is gone."""
    db.execute("DELETE FROM assignments WHERE topic = ?", topic)
    sql = "SELECT DISTINCT group_name FROM members, json_each(members.topics) WHERE value = ?"
    for (group,) in db.query(sql, topic):
        rebalance(db, group)


def claim(db: Database, group: str, member: str) -> View:
    """Inside a write: take what is meant for this member and free, and tell what it owns now."""
    [(generation,)] = db.query("SELECT generation FROM groups WHERE name = ?", group)
    sql = "UPDATE assignments SET owner = ?1, since = ?2 WHERE group_name = ?3 AND target = ?1 AND owner IS NULL"
    db.execute(sql, member, generation, group)
    sql = "SELECT topic, partition, since, target IS owner FROM assignments WHERE group_name = ? AND owner = ?"
    rows = [(TopicPartition(topic, p), since, stays) for topic, p, since, stays in db.query(sql, group, member)]
    return View(generation, {tp: since for tp, since, _ in rows}, {tp for tp, _, stays in rows if not stays})


def release(db: Database, group: str, member: str, partitions: Collection[TopicPartition]) -> None:
    """Inside a write: let go of owned partitions."""
    sql = "UPDATE assignments SET owner = NULL WHERE group_name = ? AND owner = ? AND topic = ? AND partition = ?"
    db.execute_many(sql, [(group, member, tp.topic, tp.partition) for tp in partitions])
    _settle(db, group)


def check_owner(db: Database, membership: Membership, offsets: Offsets) -> None:
    """Raise Fenced unless the member has owned all these partitions since its generation, and still does."""
    sql = "SELECT topic, partition FROM assignments WHERE group_name = ? AND owner = ? AND since <= ?"
    rows = db.query(sql, membership.group, membership.member, membership.generation)
    owned = {TopicPartition(*row) for row in rows}
    gone = sorted(tp for tp in offsets if tp not in owned)
    if gone or not db.query("SELECT 1 FROM members WHERE id = ?", membership.member):
        what = f"no longer owns {', '.join(map(str, gone))}" if gone else "is over"
        raise Fenced(f"group {membership.group!r}: this membership {what}; rewind to the committed offsets")


def committed(db: Database, group: str) -> dict[TopicPartition, int]:
    """Every committed offset of a group."""
    sql = "SELECT topic, partition, offset FROM offsets WHERE group_name = ?"
    return {TopicPartition(topic, p): offset for topic, p, offset in db.query(sql, group)}


def pending(db: Database, group: str) -> set[TopicPartition]:
    """Partitions whose offset an open transaction is about to commit."""
    sql = "SELECT topic, partition FROM transaction_offsets WHERE group_name = ?"
    return {TopicPartition(*row) for row in db.query(sql, group)}


def set_committed(db: Database, group: str, offsets: Offsets) -> None:
    """Inside a write: store offsets."""
    sent = db.next_sent()
    rows = [(group, tp.topic, tp.partition, offset, sent) for tp, offset in offsets.items()]
    db.execute_many("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?, ?)", rows)


def check_empty(db: Database, group: str) -> None:
    """Raise ConfigError when the group has members."""
    [(members,)] = db.query("SELECT count(*) FROM members WHERE group_name = ?", group)
    if members:
        raise ConfigError(
            f"group {group!r} has {members} active member(s); stop them, wait for their session to end and try again"
        )


def names(db: Database) -> list[str]:
    """Groups with members or offsets, sorted."""
    sql = "SELECT group_name FROM members UNION SELECT group_name FROM offsets ORDER BY 1"
    return [group for (group,) in db.query(sql)]


def describe(db: Database, group: str) -> GroupInfo:
    """State and members."""
    sql = "SELECT topic, partition, owner, owner IS target FROM assignments WHERE group_name = ?"
    rows = db.query(sql, group)
    sql = "SELECT id, client FROM members WHERE group_name = ? ORDER BY id"
    members = tuple(
        Member(member, tuple(sorted(TopicPartition(t, p) for t, p, owner, _ in rows if owner == member)), client)
        for member, client in db.query(sql, group)
    )
    if members:
        return GroupInfo(group, "stable" if all(settled for *_, settled in rows) else "reconciling", members)
    return GroupInfo(group, "empty" if committed(db, group) else "dead")


def delete(db: Database, group: str) -> None:
    """Inside a write: forget a group without members; its generation stays, so that old tokens stay fenced."""
    db.execute("DELETE FROM offsets WHERE group_name = ?", group)
