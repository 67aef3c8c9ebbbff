from __future__ import annotations

from hypothesis import settings

from streampipe.state.memory import MemoryStore
from tests.state.conformance import StateStoreMachine


class MemoryStoreMachine(StateStoreMachine):
    make = MemoryStore


TestMemoryStore = MemoryStoreMachine.TestCase
TestMemoryStore.settings = settings(max_examples=50, stateful_step_count=20)
