"""Noticing that a member hears nothing although there is something to hear.

A client that a restart of its broker led astray is silent for ever, and looks like one that has nothing to do. The
group and the ends of the partitions, asked by another client, tell them apart. One look may meet a rebalance or a
record on its way, so it takes two that say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from streampipe.brokers.port import Admin
from streampipe.clock import Clock
from streampipe.errors import ClientLost
from streampipe.records import TopicPartition

SILENT_S = 30.0
"""Silence that is looked into, and time between looks."""
AGAIN_S = 5.0
"""Time from one look that found something to the next one."""


class Silence:
    """That of one member of a group, known there by its `client` id."""

    def __init__(self, admin: Admin, clock: Clock, group: str, client: str) -> None:
        self._admin, self._clock, self._group, self._client = admin, clock, group, client
        self._suspected = False
        self.heard()

    def heard(self) -> None:
        """Records came, or the member has something else to do."""
        self._suspected = False
        self._look_at_s = self._clock.monotonic_s() + SILENT_S

    def look(
        self, owned: Collection[TopicPartition], paused: Collection[TopicPartition],
        position: Callable[[TopicPartition], int],
    ) -> None:  # fmt: skip
        """Call it as long as nothing is heard. Raises ClientLost, Unavailable."""
        if self._clock.monotonic_s() < self._look_at_s:
            return
        missed = self._missed([tp for tp in owned if tp not in paused], position) if owned else self._lonely()
        if missed is None:
            self.heard()
        elif self._suspected:
            raise ClientLost(f"member {self._client} of group {self._group} hears nothing: {missed}")
        else:
            self._suspected, self._look_at_s = True, self._clock.monotonic_s() + AGAIN_S

    def _missed(self, loud: Collection[TopicPartition], position: Callable[[TopicPartition], int]) -> str | None:
        """What it should have been handed long ago."""
        ends = self._admin.offsets(loud, "latest") if loud else {}
        behind = {tp: end for tp, end in ends.items() if position(tp) < end}
        return next((f"it is at {position(tp)} of {tp}, which goes up to {end}" for tp, end in behind.items()), None)

    def _lonely(self) -> str | None:
        """What the group thinks of a member that owns nothing. One that is left over is there, with nothing."""
        group = self._admin.describe_group(self._group)
        if group.state not in ("stable", "empty", "dead"):
            return None
        mine = [member for member in group.members if member.client == self._client]
        if not mine:
            return "the group does not know it"
        # one that died under the same name may be there for a while, with what it owned
        return "the group gave it partitions that it was never told of" if all(m.partitions for m in mine) else None
