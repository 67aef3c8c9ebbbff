"""Keeping the state that goes with partitions, for when they are back on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from streampipe.brokers.port import Admin
from streampipe.errors import StreampipeError
from streampipe.records import TopicPartition
from streampipe.runtime.port import Restore, Task
from streampipe.state.kept import Mark

log = logging.getLogger(__name__)


def keep_state(
    task: Task, going: Sequence[Restore], committed: Mapping[TopicPartition, int], admin: Admin,
    confirm: Callable[[], None], now_ms: int,
) -> None:  # fmt: skip
    """Keep these, all of them flushed and committed; `committed` are the group's offsets, of tables among others.

    The ends of the changelogs come first, and then `confirm`, which commits once more: if this member was still the
    owner then, nobody else can have written before those ends. Raises what `confirm` does.
    """
    try:
        ids = {topic: admin.describe_topic(topic).id for topic in sorted({what.source.topic for what in going})}
        logs = [what.source for what in going if what.upto == "end"]
        ends = {**committed, **admin.offsets(logs, "latest", "read_uncommitted")}
    except StreampipeError as error:
        log.info("state is not kept: %s", error)
        return
    confirm()
    try:
        for what in going:
            if what.source in ends:
                task.keep(what, Mark(ids[what.source.topic], ends[what.source], now_ms))
    except OSError as error:
        log.warning("state is not kept: %s", error)
