"""Where a run happens: the scenario's numbers, a new processor's topics, and the clients that look at them."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import tenacity
from tenacity import retry_if_exception_type, stop_after_delay, wait_fixed

from streampipe.brokers.opening import open_broker
from streampipe.brokers.port import Admin, Broker
from streampipe.errors import Unavailable
from streampipe.runtime.plan import TaskBuilder
from streampipe.runtime.topics import prepare_topics
from streampipe.schemas.port import Registry
from streampipe.schemas.registry import open_registry
from streampipe.testing.stack import Stack
from tests.chaos.failpoints import POINTS
from tests.chaos.processor import Topics, build

SETTINGS = {
    "STREAMPIPE_COMMIT_INTERVAL_MS": "150",
    "STREAMPIPE_KAFKA_SESSION_TIMEOUT_MS": "3000",
    "STREAMPIPE_KAFKA_HEARTBEAT_INTERVAL_MS": "500",
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """How much, how often, and where. `pace_s`: seconds that records are fed for each kill, about."""

    broker: str
    folder: Path
    records: int
    kills: int
    seed: int
    failpoints: int = 0
    """How many of the kills a failpoint makes."""
    points: tuple[str, ...] = POINTS
    zombies: int = 0
    stops: int = 0
    visitors: int = 0
    restarts: int = 0
    """Restarts of Kafka, for which it must be a `stack` of its own."""
    strangers: int = 0
    """Kills while a transaction of somebody else lies open in the changelogs."""
    wipes: int = 0
    """Kills after which much of the state is missing that is on the disk."""
    stack: Stack | None = None
    state: str = "memory"
    mutant: str = ""
    """What is broken in the workers; see `tests.chaos.mutants`."""
    partitions: int = 4
    slots: int = 2
    pace_s: float = 2.5
    finish_within_s: float = 90.0


@dataclass(frozen=True, slots=True)
class Place:
    """The clients and topics of one run. Everything here is of one thread but the broker itself."""

    broker: Broker
    admin: Admin
    registry: Registry
    topics: Topics
    environment: dict[str, str]

    def committed(self) -> int:
        """Input records that the group has committed."""
        return sum(at for tp, at in self.admin.committed(self.topics.name).items() if tp.topic == self.topics.input)

    def picture(self) -> str:
        """The group and its input as the broker sees them, for a run that stands still."""
        group = self.admin.describe_group(self.topics.name)
        committed = self.admin.committed(self.topics.name)
        high = self.admin.offsets(list(committed), "latest", "read_uncommitted")
        stable = self.admin.offsets(list(committed), "latest", "read_committed")
        lines = [f"{tp}: committed {at} of {stable[tp]} stable, {high[tp]} high" for tp, at in committed.items()]
        return "\n".join([f"group: {group}", *sorted(lines)])


class _Patient:
    """An admin that waits for a Kafka that is being restarted."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._admin, name)
        retry = retry_if_exception_type(Unavailable)
        return tenacity.retry(retry=retry, stop=stop_after_delay(60), wait=wait_fixed(0.2), reraise=True)(call)


def open_place(scenario: Scenario, stack: ExitStack) -> Place:
    """Topics and schemas of a new processor."""
    topics = Topics(f"chaos-{uuid4().hex[:8]}")
    address = f"local:{scenario.folder / 'registry.db'}"
    broker = open_broker(scenario.broker)
    admin = cast(Admin, _Patient(stack.enter_context(closing(broker.admin()))))
    registry = stack.enter_context(closing(open_registry(address)))
    admin.create_topic(topics.input, scenario.partitions)
    topology = build(topics.name).topology
    TaskBuilder(topology, registry, str(scenario.folder / "schemas"), sleep=time.sleep).build()
    prepare_topics(topology, admin, create=True)
    environment = {
        "CHAOS_PROCESSOR": topics.name,
        "CHAOS_MUTANT": scenario.mutant,
        "STREAMPIPE_BROKER": scenario.broker,
        "STREAMPIPE_REGISTRY": address,
        "STREAMPIPE_SCHEMAS": str(scenario.folder / "schemas"),
        "STREAMPIPE_STATE": scenario.state,
        "STREAMPIPE_STATE_DIR": str(scenario.folder / "state"),
        **SETTINGS,
    }
    return Place(broker, admin, registry, topics, environment)
