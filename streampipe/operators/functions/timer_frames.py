"""What comes of timers as rows: alone, or among those of records, in the order in which they came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from streampipe.operators.frame import Column, Extended, Frame, Origin
from streampipe.operators.grouping import columns_of_keys, key_bytes
from streampipe.records import IntArray

Home = tuple[int, bytes]
"""Partition and state key."""
_TOLD = pa.schema([("timer", pa.string()), ("at", pa.int64())])


@dataclass(frozen=True, slots=True)
class Rung:
    """A timer that rang; `time_ms` is the event time of what comes of it."""

    home: Home
    name: str
    at_ms: int
    time_ms: int


class TimerFrames:
    """Frames of the timers of one node. Their columns only say which timer it was, for dead letters."""

    def __init__(self, name: str, key: Mapping[str, pa.DataType]) -> None:
        self._name, self._key = name, key

    def columns(self, keys: Sequence[bytes]) -> dict[str, pa.Array]:
        """The key columns of these state keys."""
        arrays = columns_of_keys(keys, list(self._key.values()))
        return dict(zip(self._key, arrays, strict=True))

    def named(self, key: bytes) -> dict[str, Any]:
        """A key by column."""
        return {column: values[0].as_py() for column, values in self.columns([key]).items()}

    def record_keys(self, columns: Mapping[str, pa.Array]) -> list[bytes | None]:
        """Record keys of these key columns."""
        return key_bytes({column: Column(arrow=columns[column]) for column in self._key})

    def of(self, rung: Sequence[Rung]) -> Frame:
        """A row for each of these timers, one at least."""
        return _told(rung, Origin(self._name, *self._records(rung)))

    def mixed(self, frame: Frame, rung: Sequence[Rung], entries: Sequence[int]) -> Frame:
        """Rows of a frame and timers: entry i is row i of the frame, entry ~i the i-th timer."""
        of = np.array(entries)
        made = of < 0
        keys, times, partitions = self._records([rung[~entry] for entry in entries if entry < 0])
        row_keys, made_keys = frame.keys(), iter(keys)
        every = [next(made_keys) if entry < 0 else row_keys[entry] for entry in entries]
        sources, at, home = (np.full(len(of), -1, np.int64) for _ in range(3))
        at[made], home[made] = times, partitions
        rows = of[~made]
        sources[~made], at[~made], home[~made] = frame.indexes[rows], frame.timestamps[rows], frame.partitions[rows]
        told = [rung[~entry] if entry < 0 else None for entry in entries]
        return _told(told, Extended(frame.origin, sources, self._name, every, at, home))

    def _records(self, rung: Sequence[Rung]) -> tuple[list[bytes | None], IntArray, IntArray]:
        """Record key, event time and partition of what comes of timers."""
        keys = self.record_keys(self.columns([r.home[1] for r in rung])) if rung else []
        return keys, np.array([r.time_ms for r in rung], np.int64), np.array([r.home[0] for r in rung], np.int64)


def _told(rung: Sequence[Rung | None], origin: Origin) -> Frame:
    rows = [{} if r is None else {"timer": r.name, "at": r.at_ms} for r in rung]
    return Frame.of(pa.RecordBatch.from_pylist(rows, schema=_TOLD), origin)
