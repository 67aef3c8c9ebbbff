"""Who of a group reads which partition: sticky, balanced, pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from streampipe.records import TopicPartition

Unit = tuple[TopicPartition, ...]


def assign(
    subscriptions: Mapping[str, Collection[str]],
    partitions: Mapping[str, int],
    current: Mapping[TopicPartition, str],
    co_partitioned: bool,
) -> dict[TopicPartition, str]:
    """Member by partition, given the topics of each member and the partition count of each topic.

    A member keeps what it has in `current` unless that leaves another one, subscribed as well, with at least two
    units less. A unit is a partition, or, co-partitioned, partition p of all topics with the same subscribers.
    """
    held: dict[str, list[Unit]] = {member: [] for member in sorted(subscriptions)}
    homeless = []
    units = _units(subscriptions, partitions, co_partitioned)
    for unit, subscribers in units.items():
        owner = next((current[tp] for tp in unit if current.get(tp) in subscribers), None)
        if owner is None:
            homeless.append(unit)
        else:
            held[owner].append(unit)
    for unit in homeless:
        held[min(units[unit], key=lambda member: len(held[member]))].append(unit)
    _balance(held, units)
    return {tp: member for member, own in held.items() for unit in own for tp in unit}


def _units(
    subscriptions: Mapping[str, Collection[str]], partitions: Mapping[str, int], co_partitioned: bool
) -> dict[Unit, list[str]]:
    """Units in order, each with the members that may have it, sorted."""
    families: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for topic in sorted(partitions):
        subscribers = tuple(sorted(member for member, topics in subscriptions.items() if topic in topics))
        if subscribers:
            families[subscribers if co_partitioned else (topic,)].append(topic)
    units = {}
    for topics in families.values():
        subscribers = tuple(sorted(member for member, subscribed in subscriptions.items() if topics[0] in subscribed))
        for p in range(max(partitions[topic] for topic in topics)):
            unit = tuple(TopicPartition(topic, p) for topic in topics if p < partitions[topic])
            units[unit] = list(subscribers)
    return units


def _balance(held: dict[str, list[Unit]], units: Mapping[Unit, list[str]]) -> None:
    """Move units from fuller to emptier members until no move would narrow a gap of two or more."""
    moved = True
    while moved:
        moved = False
        for giver in sorted(held, key=lambda member: -len(held[member])):
            for unit in reversed(held[giver]):
                taker = min(units[unit], key=lambda member: len(held[member]))
                if len(held[giver]) - len(held[taker]) >= 2:
                    held[giver].remove(unit)
                    held[taker].append(unit)
                    moved = True
                    break
