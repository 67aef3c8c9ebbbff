"""What stateful functions remember, as bytes for stores and changelogs; and when to look at which key again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import Any

import orjson
import pyarrow as pa

from streampipe.errors import StateCorrupted
from streampipe.keyed_state import Handle, KeyState
from streampipe.state.codec import Sealer

STREAM_TIME = b""
"""State key under which a partition's stream time is kept; the key of a record is a JSON array."""


class KeyStateCodec:
    """Key: the key columns as a JSON array. Payload: stream time of the last change, values and timers as JSON."""

    def __init__(self, name: str, key: Mapping[str, pa.DataType], states: Mapping[str, type[Handle]]) -> None:
        kinds = [f"{state} {kind.__name__}" for state, kind in sorted(states.items())]
        self._name = name
        self._sealer = Sealer(name, "|".join(["function", *(f"{c} {kind}" for c, kind in key.items()), *kinds]))

    def encode(self, held: KeyState) -> bytes | None:
        """Everything of one key; None when that is nothing."""
        if not held.values and not held.timers:
            return None
        timers = [[clock, name, at] for (clock, name), at in held.timers.items()]
        return self._sealer.seal([orjson.dumps([held.changed_ms, held.values, timers])])[0]

    def check(self, values: Sequence[bytes]) -> None:
        """Raise StateCorrupted if one of them was written by another shape, or is not as it was written."""
        self._sealer.unseal(values)

    def decode(self, value: bytes | None) -> KeyState:
        """Everything of one key; None stands for nothing. Raises StateCorrupted."""
        if value is None:
            return KeyState()
        changed_ms, values, timers = self._payload(value, 3)
        return KeyState(values, {(clock, name): at for clock, name, at in timers}, changed_ms)

    def encode_time(self, stream_time: int) -> bytes:
        """A stream time in ms."""
        return self._sealer.seal([orjson.dumps([stream_time])])[0]

    def decode_time(self, value: bytes) -> int:
        """A stream time in ms. Raises StateCorrupted."""
        return int(self._payload(value, 1)[0])

    def _payload(self, value: bytes, size: int) -> list[Any]:
        payload = orjson.loads(self._sealer.unseal([value])[0])
        if len(payload) != size:
            raise StateCorrupted(f"state {self._name!r}: a value is not one that this version writes")
        return list(payload)


class Agenda:
    """When to look at which key again: each key once, at the earliest time that was asked for."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, bytes]] = []
        self._planned: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._planned)

    def plan(self, key: bytes, due_ms: int) -> None:
        """Look at a key at this time, unless that is to be earlier."""
        planned = self._planned.get(key)
        if planned is None or due_ms < planned:
            self._planned[key] = due_ms
            heappush(self._heap, (due_ms, key))

    def pop(self, until_ms: int) -> tuple[int, bytes] | None:
        """The next key to look at, and the time that was planned; None when nothing is due."""
        while self._heap and self._heap[0][0] <= until_ms:
            due_ms, key = heappop(self._heap)
            if self._planned.get(key) == due_ms:
                del self._planned[key]
                return due_ms, key
        return None
