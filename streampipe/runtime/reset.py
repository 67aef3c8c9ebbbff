"""Forgetting state on purpose: the stores of a processor that has no workers, and, to rebuild it, what it has read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from streampipe.brokers.port import Admin
from streampipe.errors import ConfigError, NotFound
from streampipe.records import TopicPartition
from streampipe.runtime.finish import partitions_of
from streampipe.topology.nodes import Repartition, Sink, Source, Stateful, Topology


@dataclass(frozen=True, slots=True)
class ResetPlan:
    """What a reset will do; `rewind` and `repeated` only when state is rebuilt."""

    group: str
    deleted: tuple[str, ...]
    """Changelogs and repartition topics; the next run makes them anew."""
    rewind: dict[TopicPartition, int]
    """Offsets that the group goes back to."""
    repeated: tuple[str, ...]
    """Topics that get every record a second time."""


def plan_reset(topology: Topology, admin: Admin, stores: Collection[str], *, rebuild: bool) -> ResetPlan:
    """What to do to forget these stores (none: all), or to `rebuild` all of them from the input.

    Raises NotFound for a store that there is not, or that lives in a topic of somebody else's; ConfigError while the
    processor runs, or for `rebuild` of some stores only: the inputs feed them all.
    """
    if rebuild and stores:
        raise ConfigError("--rebuild reads the inputs again, which all stores are fed from: name no store with it")
    known = {node.name: node.changelog for node in topology.of(Stateful)}
    for store in stores:
        if store not in known:
            raise NotFound(
                f"processor {topology.app_id!r} has no state of its own {store!r}; it has: {', '.join(known) or 'none'}"
            )
    if members := admin.describe_group(topology.app_id).members:
        raise ConfigError(f"processor {topology.app_id!r} has {len(members)} running worker(s); stop them first")
    there = admin.topics()
    gone = [topic for name, topic in known.items() if not stores or name in stores]
    if not rebuild:
        return ResetPlan(topology.app_id, tuple(t for t in gone if t in there), {}, ())
    gone += [node.topic for node in topology.of(Repartition)]
    sources = {node.topic for node in topology.of(Source)} & there.keys()
    rewind = admin.offsets(partitions_of(admin, sources), "earliest")
    repeated = dict.fromkeys(node.topic for node in topology.of(Sink) if rewind and node.topic in there)
    return ResetPlan(topology.app_id, tuple(t for t in gone if t in there), rewind, tuple(repeated))


def reset(plan: ResetPlan, admin: Admin) -> None:
    """Do it. One that is interrupted has to be repeated before a worker starts.

    Raises ConfigError when a worker came meanwhile, with nothing deleted.
    """
    if plan.rewind:
        admin.set_committed(plan.group, plan.rewind)
    for topic in plan.deleted:
        admin.delete_topic(topic)
