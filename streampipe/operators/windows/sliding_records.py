"""The records that sliding windows are made of: as slots, as bytes, and in order by key."""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streampipe.errors import StateCorrupted
from streampipe.operators.accumulators import Accumulator
from streampipe.operators.slots import Table
from streampipe.operators.window_state import WindowStateCodec
from streampipe.records import IntArray
from streampipe.state.codec import window_keys

_CLOCK = struct.Struct(">qqq")


class RecordTable(Table):
    """Records in slots: `start` and `timestamp` are the time of each."""

    def __init__(self, accumulators: Sequence[Accumulator]) -> None:
        super().__init__(accumulators)
        self.seen = np.zeros(0, np.int64)
        """Stream time as the record saw it, itself included."""
        self.number = np.zeros(0, np.int64)
        """Its number in the order in which records of the partition came."""


class RecordCodec(WindowStateCodec):
    """A record is known by its key, time and number. Beside it: stream time, what is closed, the next number."""

    columns = ("timestamp", "seen")

    def keys(self, slots: Table, at: IntArray) -> list[bytes]:
        """Under which state keys these slots are kept."""
        assert isinstance(slots, RecordTable)
        homes = zip(at.tolist(), slots.number[at].tolist(), strict=True)
        return window_keys([b"%b,%d]" % (slots.keys[slot][:-1], number) for slot, number in homes], slots.start[at])

    def place(self, slots: Table, partition: int, keys: Sequence[bytes], starts: IntArray) -> IntArray:
        """Fresh slots for what these state keys say. Raises StateCorrupted."""
        assert isinstance(slots, RecordTable)
        parts = list(map(key_and_number, keys))
        at = slots.take(np.full(len(keys), partition, np.int64), starts, [key for key, _ in parts])
        slots.number[at] = [number for _, number in parts]
        return at

    def encode_clock(self, stream_time: int, closed: int, number: int) -> bytes:
        """The three numbers of a partition, sealed."""
        return self._sealer.seal([_CLOCK.pack(stream_time, closed, number)])[0]

    def decode_clock(self, value: bytes) -> tuple[int, int, int]:
        """The three numbers of a partition. Raises StateCorrupted."""
        try:
            stream_time, closed, number = _CLOCK.unpack(self._sealer.unseal([value])[0])
        except struct.error:
            raise StateCorrupted(f"state {self._name!r}: a value is not one that this version writes") from None
        return stream_time, closed, number


def key_and_number(name: bytes) -> tuple[bytes, int]:
    """Of a state key without its time: the key, and the number of the record."""
    key, _, number = name[:-1].rpartition(b",")
    return key + b"]", int(number)


@dataclass(slots=True)
class Records:
    """The records of a key in the order of their times; those of one time in the order in which they came."""

    times: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    late: int = 0
    """How many of them came too late for their own windows."""

    def add(self, time: int, slot: int, *, late: bool) -> None:
        """One more."""
        at = bisect_right(self.times, time) if self.times and time < self.times[-1] else len(self.times)
        self.times.insert(at, time)
        self.slots.insert(at, slot)
        self.late += late

    def remove(self, gone: set[int], late: int) -> None:
        """Some less, most often the first ones."""
        n = len(gone)
        if gone.issuperset(self.slots[:n]):
            del self.times[:n], self.slots[:n]
        else:
            left = [(time, slot) for time, slot in zip(self.times, self.slots, strict=True) if slot not in gone]
            self.times, self.slots = [time for time, _ in left], [slot for _, slot in left]
        self.late -= late

    def between(self, first: int, last: int) -> list[int]:
        """The slots of those from one time to another."""
        return self.slots[bisect_left(self.times, first) : bisect_right(self.times, last)]
