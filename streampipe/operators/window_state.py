"""State of a windowed aggregate as bytes, for stores and changelogs, and back into slots."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from streampipe.errors import StateCorrupted
from streampipe.operators.accumulators import Accumulator, ObjectAccumulator
from streampipe.operators.slots import Slots, Table
from streampipe.records import IntArray
from streampipe.state.codec import HEAD, Sealer, parse_window_keys, window_keys

STREAM_TIME = b""
"""State key under which a partition's stream time is kept; no window key is empty."""

_TIME = struct.Struct(">q")
_LENGTH = struct.Struct(">I")


class WindowStateCodec:
    """Payload: columns of the slot, every array of every accumulator, then the objects, each after its length."""

    columns: tuple[str, ...] = ("timestamp", "emitted")
    """Which columns of a slot are state."""

    def __init__(
        self, name: str, accumulators: Mapping[str, Accumulator], key: Mapping[str, pa.DataType], window: str
    ) -> None:
        self._name = name
        self._accumulators = list(accumulators.values())
        self._objects = [a for a in self._accumulators if isinstance(a, ObjectAccumulator)]
        arrays = [a.dtype.newbyteorder(">") for acc in self._accumulators for a in acc.arrays]
        columns = [(column, "?" if column == "emitted" else ">i8") for column in self.columns]
        self._row = np.dtype([*columns, *((f"a{i}", d) for i, d in enumerate(arrays))])
        self._value = np.dtype([*HEAD.descr, ("row", self._row)])
        shape = [
            window,
            *(f"{column} {kind}" for column, kind in key.items()),
            *(f"{aggregate} {a.shape}" for aggregate, a in accumulators.items()),
            str(self._row),
        ]
        self._sealer = Sealer(name, "|".join(shape))

    def keys(self, slots: Table, at: IntArray) -> list[bytes]:
        """Under which state keys these slots are kept."""
        return window_keys(slots.keys[at].tolist(), slots.start[at])

    def place(self, slots: Table, partition: int, keys: Sequence[bytes], starts: IntArray) -> IntArray:
        """Slots for what these state keys say, which parsed to these keys and window starts."""
        assert isinstance(slots, Slots)
        return slots.find(np.full(len(keys), partition, np.int64), starts, keys)

    def encode(self, slots: Table, at: IntArray) -> tuple[list[bytes], list[bytes]]:
        """Keys and sealed values of these slots."""
        values = np.empty(len(at), self._value)
        rows = values["row"]
        for column in self.columns:
            rows[column] = getattr(slots, column)[at]
        arrays = [array for accumulator in self._accumulators for array in accumulator.arrays]
        for i, array in enumerate(arrays):
            rows[f"a{i}"] = array[at]
        objects = self._dumped(at)
        data, size = rows.tobytes(), self._row.itemsize
        ends = range(0, len(data), size)
        crcs = [zlib.crc32(data[i : i + size]) for i in ends]
        if objects:
            crcs = [zlib.crc32(held, crc) for held, crc in zip(objects, crcs, strict=True)]
        self._sealer.head(values, crcs)
        data, size = values.tobytes(), self._value.itemsize
        sealed = [data[i : i + size] for i in range(0, len(data), size)]
        if objects:
            sealed = [value + held for value, held in zip(sealed, objects, strict=True)]
        return self.keys(slots, at), sealed

    def _dumped(self, at: IntArray) -> list[bytes]:
        """The objects of each slot, if there are any."""
        if not self._objects:
            return []
        return [b"".join(_sized(a.dump(a.objects[slot])) for a in self._objects) for slot in at.tolist()]

    def decode(self, slots: Table, partition: int, keys: Sequence[bytes], values: Sequence[bytes]) -> IntArray:
        """Put stored entries of a partition into slots, and say which. Raises StateCorrupted."""
        head, size = HEAD.itemsize, self._value.itemsize
        self._long_enough(values, head)
        heads = np.frombuffer(b"".join([value[:head] for value in values]), HEAD)
        self._sealer.check(heads, [zlib.crc32(value[head:]) for value in values])
        self._long_enough(values, size)
        rows = np.frombuffer(b"".join([value[head:size] for value in values]), self._row)
        at = self.place(slots, partition, *parse_window_keys(keys))
        for column in self.columns:
            getattr(slots, column)[at] = rows[column]
        slots.stored[at] = True
        i = 0
        for accumulator in self._accumulators:
            for array in accumulator.arrays:
                array[at] = rows[f"a{i}"]
                i += 1
        if self._objects:
            for slot, value in zip(at.tolist(), values, strict=True):
                self._load(slot, value, size)
        return at

    def _long_enough(self, values: Sequence[bytes], size: int) -> None:
        if min(map(len, values)) < size:
            raise StateCorrupted(f"state {self._name!r}: a value is too short")

    def _load(self, slot: int, payload: bytes, start: int) -> None:
        try:
            for accumulator in self._objects:
                (length,) = _LENGTH.unpack_from(payload, start)
                start += _LENGTH.size
                accumulator.objects[slot] = accumulator.load(payload[start : start + length])
                start += length
        except (struct.error, ValueError):
            raise StateCorrupted(f"state {self._name!r}: a value is not one that this version writes") from None

    def encode_time(self, stream_time: int) -> bytes:
        """A stream time in ms, sealed."""
        return self._sealer.seal([_TIME.pack(stream_time)])[0]

    def decode_time(self, value: bytes) -> int:
        """A stream time in ms. Raises StateCorrupted."""
        return int(_TIME.unpack(self._sealer.unseal([value])[0])[0])


def _sized(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data
