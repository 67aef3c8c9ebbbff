"""From a topology to a task. Everything that can be wrong with a processor is found here, before the first record."""

from __future__ import annotations

from collections.abc import Callable

from streampipe.runtime.task import TopologyTask
from streampipe.runtime.topic_schemas import TopicSchemas
from streampipe.runtime.wiring import Wiring
from streampipe.schemas.port import Registry
from streampipe.state.memory import MemoryStores
from streampipe.state.port import Stores
from streampipe.topology.nodes import Topology


class TaskBuilder:
    """Builds tasks of one topology. The registry is asked during the first build; later ones need no network.

    `folder` holds .avsc files; `sleep(seconds)` is how a handler's retry waits; `stores` keep the state, by default
    in memory.
    """

    def __init__(
        self,
        topology: Topology,
        registry: Registry,
        folder: str,
        *,
        sleep: Callable[[float], None],
        stores: Stores | None = None,
    ) -> None:
        self.topology = topology
        self._schemas = TopicSchemas(registry, folder)
        self._sleep, self._stores = sleep, stores or MemoryStores()

    def build(self) -> TopologyTask:
        """A fresh task without state. Raises TopologyError, ConfigError, UnknownSubject, Unavailable."""
        return Wiring(self.topology, self._schemas, self._sleep, self._stores).task()
