"""When a worker that runs to an end is finished: seen from the group's committed offsets, not from one member."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from streampipe.brokers.port import Admin
from streampipe.clock import Clock
from streampipe.records import TopicPartition

MARKERS_S = 5.0
"""How long a run to the end waits for the end of transactions that are open when it begins."""
_AGAIN_S = 0.05

log = logging.getLogger(__name__)


def is_repartition(topic: str, app_id: str) -> bool:
    """Whether a topic is one of the processor's own repartition topics."""
    return topic.startswith(f"{app_id}-") and topic.endswith("-repartition")


def partitions_of(admin: Admin, topics: Collection[str]) -> list[TopicPartition]:
    """Every partition of these topics. Raises UnknownTopic."""
    return [TopicPartition(t, n) for t in sorted(topics) for n in range(admin.describe_topic(t).partitions)]


class FinishLine:
    """Offsets that the group must have committed, and repartition topics that must run dry after them.

    The repartition topics are dry when two looks in a row see the same ends, all of them committed. That is
    enough for any depth: a look reads committed offsets after ends, so the first topic after the inputs is complete
    at the first look, hence the end of the next one as of the second look is final, and so on down.
    """

    def __init__(
        self, admin: Admin, app_id: str, targets: Mapping[TopicPartition, int], inputs: Collection[str]
    ) -> None:
        self._admin, self._app_id = admin, app_id
        self._targets = dict(targets)
        self._internal = partitions_of(admin, [t for t in inputs if is_repartition(t, app_id)])
        # Offsets below the first one that is still there can neither be read nor committed.
        self._firsts = admin.offsets([*self._targets, *self._internal], "earliest")
        self._last_ends: Mapping[TopicPartition, int] | None = None

    def reached(self) -> bool:
        """Whether everything is committed. Raises Unavailable (call again)."""
        if not self._complete(self._targets):
            self._last_ends = None
            return False
        if not self._internal:
            return True
        ends = self._admin.offsets(self._internal, "latest", "read_uncommitted")
        dry = self._complete(ends)
        stable = dry and ends == self._last_ends
        self._last_ends = ends if dry else None
        return stable

    def _complete(self, ends: Mapping[TopicPartition, int]) -> bool:
        committed = self._admin.committed(self._app_id)
        return all(max(committed.get(tp, 0), self._firsts[tp]) >= end for tp, end in ends.items())


def caught_up(admin: Admin, clock: Clock, app_id: str, inputs: Collection[str]) -> FinishLine:
    """The finish line at what is written in the external inputs now, without transactions that stay open.

    A commit returns before its markers are in all partitions (KIP-98), and a read_committed consumer sees nothing of
    it before: what is about to become readable is waited for, up to `MARKERS_S`.
    """
    external = partitions_of(admin, [t for t in inputs if not is_repartition(t, app_id)])
    written = admin.offsets(external, "latest", "read_uncommitted")
    deadline = clock.monotonic_s() + MARKERS_S
    while held := {tp: end for tp, end in admin.offsets(external, "latest").items() if end < written[tp]}:
        if clock.monotonic_s() >= deadline:
            places = ", ".join(f"{tp} from offset {end} on" for tp, end in sorted(held.items()))
            log.info("left to the next run, since a transaction is open: %s", places)
            break
        clock.sleep_s(_AGAIN_S)
    return FinishLine(admin, app_id, written | held, inputs)
