"""What a worker is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streampipe.brokers.port import Broker
from streampipe.clock import Clock, SystemClock
from streampipe.config import Settings
from streampipe.records import TopicPartition
from streampipe.runtime.observer import NullObserver
from streampipe.runtime.port import Observer, Task


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is to do; the same for each of its memberships."""

    task_factory: Callable[[], Task]
    broker: Broker
    settings: Settings
    app_id: str
    slot: int = 0
    instance: str = ""
    observer: Observer = field(default_factory=NullObserver)
    clock: Clock = field(default_factory=SystemClock)
    until: Mapping[TopicPartition, int] = field(default_factory=dict)
    replay: bool = False
    restore_patience_s: float = 120.0

    @property
    def transactional_id(self) -> str:
        """Stable per worker slot, so that a restarted worker ends its predecessor's transaction at once."""
        return "-".join(part for part in (self.app_id, self.instance, str(self.slot)) if part)


def input_topics(task: Task) -> set[str]:
    """Every topic that the group consumes."""
    return {topic for part in task.subtopologies for topic in (*part.streams, *part.tables)}
