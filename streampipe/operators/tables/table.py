"""Tables: the latest value by key, kept as the bytes that came, and decoded when something is looked up.

Keeping bytes makes a table small, makes its own topic its changelog, and makes a look-up one columnar decode of the
distinct rows found.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pyarrow as pa

from streampipe.operators.edges import failure_reason, report_failures
from streampipe.operators.effects import DROPPED, OK, Effects, Reason
from streampipe.operators.frame import Frame, Origin
from streampipe.operators.stateful import StatefulStep
from streampipe.operators.stream_time import NEVER
from streampipe.operators.tables.versions import pack, put, unpack, valid_at
from streampipe.records import NO_TIMESTAMP, IntArray, RecordBatch
from streampipe.schemas.port import Decoded, Decoder
from streampipe.state.kept import Mark
from streampipe.state.port import StateStore, Stores
from streampipe.topology.nodes import TableSource

GLOBAL = -1
"""The one partition that a global table keeps all its rows in."""
_AT_ONCE = 10_000
_TIME = struct.Struct(">q")


@dataclass(frozen=True, slots=True)
class Change:
    """Rows of a table that were set or deleted, in order. `rows[i]` is that of `columns`, -1 for a delete."""

    keys: list[bytes]
    partitions: IntArray
    times: IntArray
    columns: pa.RecordBatch
    rows: IntArray
    before: list[bytes | None]
    """The values that were there."""


class TableStep(StatefulStep):
    """Keeps the rows of a table topic, which is its changelog.

    Values that do not decode, and records without key, are dead letters.
    """

    upto = "committed"

    def __init__(self, node: TableSource, effects: Effects, decoder: Decoder, stores: Stores) -> None:
        super().__init__(node.name, effects)
        self.decoder, self.everywhere, self.topic = decoder, node.everywhere, node.topic
        self.changelog = node.topic
        self.key = node.key or ()
        self.history_ms = node.history_ms
        self._newest: dict[int, int] = {}
        """Stream time of each partition of a table with a history."""
        self._stores = stores
        self._open: dict[int, StateStore] = {}
        self.listeners: list[Callable[[Change], None]] = []
        """Who wants to hear of changes. With any, rows are kept with their times."""

    def decode(self, batch: RecordBatch) -> Decoded:
        """Decode, to tell good values from bad ones. Raises Unavailable with nothing changed."""
        return self.decoder.decode(batch.values)

    def feed(self, origin: Origin, decoded: Decoded) -> None:
        """Apply what `decode` accepted, as part of processing."""
        assert origin.batch is not None
        frame = Frame({}, origin)
        report_failures(self.effects, frame, self.name, decoded.failures)
        bad = {f.row for f in decoded.failures}
        keyless = [i for i, key in enumerate(origin.keys) if key is None and i not in bad]
        if keyless:
            reason = Reason("validation", "ValidationError", "a table record needs a key", {"rule": "key"})
            self.effects.dead_letters(frame, np.array(keyless, np.int64), self.name, lambda _: reason)
        rows = self._usable(origin.batch, decoded)
        change = self._change(origin.batch, decoded, rows) if self.listeners and len(rows) else None
        late = self._apply(origin.batch, rows)
        origin.mark(np.setdiff1d(rows, late), OK)
        if len(late):
            origin.mark(late, DROPPED)
            self.effects.late_drops[self.name] += len(late)
        if change is not None:
            for listener in self.listeners:
                listener(change)

    def _change(self, batch: RecordBatch, decoded: Decoded, rows: IntArray) -> Change:
        """What is about to be applied, and what was there before each record of it."""
        keys = [key for i in rows.tolist() if (key := batch.keys[i]) is not None]
        partitions = batch.partitions[rows]
        homes = list(zip(partitions.tolist(), keys, strict=True))
        latest: dict[tuple[int, bytes], bytes | None] = {}
        for partition in np.unique(partitions).tolist():
            mine = list(dict.fromkeys(key for home, key in homes if home == partition))
            latest |= zip(((partition, key) for key in mine), self._got(partition, mine), strict=True)
        before: list[bytes | None] = []
        for home, row in zip(homes, rows.tolist(), strict=True):
            before.append(latest[home])
            latest[home] = batch.values[row]
        row_of = np.full(len(batch), -1, np.int64)
        here = np.arange(len(batch)) if decoded.rows is None else decoded.rows
        row_of[here] = np.arange(len(here))
        return Change(keys, partitions, batch.timestamps[rows], decoded.columns, row_of[rows], before)

    def _got(self, home: int, keys: list[bytes]) -> list[bytes | None]:
        """Values of keys, without their times."""
        found = self.store(home).get_many(keys)
        return [value and value[_TIME.size :] for value in found] if self.listeners else found

    def found(self, homes: IntArray, keys: Sequence[bytes | None]) -> tuple[pa.RecordBatch, IntArray, IntArray]:
        """Decoded rows of keys, the row of each key (-1 where there is none), and their times where those are kept."""
        values: list[bytes | None] = [None] * len(keys)
        times = np.zeros(len(keys), np.int64)
        for home in np.unique(homes).tolist():
            mine = [i for i in np.flatnonzero(homes == home).tolist() if keys[i] is not None]
            got = self.store(home).get_many([key for i in mine if (key := keys[i]) is not None])
            for i, value in zip(mine, got, strict=True):
                if value is not None and self.listeners:
                    times[i], value = _TIME.unpack_from(value)[0], value[_TIME.size :]
                values[i] = value
        columns, rows = decoded_rows(self.decoder, values)
        return columns, rows, times

    def load(self, batch: RecordBatch) -> list[str]:
        """Apply records outside processing (a restore, a global table); a line for each bad one, left out."""
        decoded = self.decode(batch)
        rows = self._usable(batch, decoded)
        self._apply(batch, rows)
        good = set(rows.tolist())
        why = {f.row: failure_reason(f).message for f in decoded.failures}
        return [
            f"{batch.topic}[{batch.partitions[i]}]@{batch.offsets[i]}: {why.get(i, 'a table record needs a key')}"
            for i in range(len(batch))
            if i not in good
        ]

    @staticmethod
    def _usable(batch: RecordBatch, decoded: Decoded) -> IntArray:
        usable = np.ones(len(batch), np.bool_)
        usable[[f.row for f in decoded.failures]] = False
        usable &= np.array([key is not None for key in batch.keys], np.bool_)
        return np.flatnonzero(usable)

    def _apply(self, batch: RecordBatch, rows: IntArray) -> IntArray:
        """Set and delete rows; returns those that were too late for the history."""
        if self.history_ms is not None:
            return self._apply_versions(batch, rows, self.history_ms)
        homes = np.full(len(batch), GLOBAL, np.int64) if self.everywhere else batch.partitions
        for home in np.unique(homes[rows]).tolist():
            mine = rows[homes[rows] == home].tolist()
            keys = [key for i in mine if (key := batch.keys[i]) is not None]
            values = [batch.values[i] for i in mine]
            if self.listeners:
                times = map(_TIME.pack, batch.timestamps[mine].tolist())
                values = [value if value is None else time + value for time, value in zip(times, values, strict=True)]
            self.store(home).put_many(keys, values)
        return rows[:0]

    def _apply_versions(self, batch: RecordBatch, rows: IntArray, history_ms: int) -> IntArray:
        """A record at a time, since each one moves time on."""
        late: list[int] = []
        for home in np.unique(batch.partitions[rows]).tolist():
            mine = rows[batch.partitions[rows] == home].tolist()
            keys = list(dict.fromkeys(key for i in mine if (key := batch.keys[i]) is not None))
            held = {key: unpack(packed) if packed else [] for key, packed in
                    zip(keys, self.store(home).get_many(keys), strict=True)}  # fmt: skip
            newest = self._newest.get(home, NEVER)
            for i, time in zip(mine, batch.timestamps[mine].tolist(), strict=True):
                newest = max(newest, time)
                if time < newest - history_ms:
                    late.append(i)
                elif (key := batch.keys[i]) is not None:
                    put(held[key], time, batch.values[i], newest - history_ms)
            self._newest[home] = newest
            self.store(home).put_many(keys, [pack(held[key]) if held[key] else None for key in keys])
        return np.array(late, np.int64)

    def found_at(
        self, homes: IntArray, keys: Sequence[bytes | None], times: IntArray
    ) -> tuple[pa.RecordBatch, IntArray]:
        """Decoded rows as they were at these times, each once, and the row of each key, -1 where there is none."""
        assert self.history_ms is not None
        values: list[bytes | None] = [None] * len(keys)
        for home in np.unique(homes).tolist():
            mine = [i for i in np.flatnonzero(homes == home).tolist() if keys[i] is not None]
            wanted = list(dict.fromkeys(key for i in mine if (key := keys[i]) is not None))
            held = dict(zip(wanted, self.store(home).get_many(wanted), strict=True))
            versions = {key: unpack(packed) for key, packed in held.items() if packed is not None}
            oldest_ms = self._newest.get(home, NEVER) - self.history_ms
            for i in mine:
                values[i] = valid_at(versions.get(keys[i] or b"", []), int(times[i]), oldest_ms)
        numbers: dict[bytes | None, int] = {}
        of = np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
        columns, rows = decoded_rows(self.decoder, list(numbers))
        return columns, rows[of]

    def store(self, partition: int) -> StateStore:
        """Rows of a partition."""
        if partition not in self._open:
            self._open[partition] = self._stores.open(self.name, partition)
        return self._open[partition]

    def open(self, partition: int) -> None:
        """Take a partition on, without rows, or with those that were kept."""
        mark = self.store(partition).mark
        if mark is not None and mark.stream_time_ms is not None:
            self._newest[partition] = mark.stream_time_ms

    def mark(self, partition: int) -> Mark | None:
        """How far the rows go that were kept, if they were kept in the way in which they are now."""
        mark = self.store(partition).mark
        if mark is not None and mark.shape != self._shape:
            self.forget_kept(partition)
            return None
        return mark

    @property
    def _shape(self) -> str:
        if self.history_ms is not None:
            return f"versions of {self.history_ms} ms"
        return "timed rows" if self.listeners else "rows"

    def forget_kept(self, partition: int) -> None:
        """Empty the store."""
        self.store(partition).clear()
        self._newest.pop(partition, None)

    @property
    def keeps(self) -> bool:
        """Whether stores can be kept."""
        return self._stores.keeps

    def keep(self, partition: int, mark: Mark) -> None:
        """Keep the rows."""
        self.store(partition).keep(replace(mark, shape=self._shape, stream_time_ms=self._newest.get(partition)))

    def restore(self, partition: int, batch: RecordBatch) -> None:  # noqa: ARG002 - the batch knows its partition
        """Apply rows; bad ones met their fate when they were processed."""
        self.load(batch)

    def show(self, partition: int) -> None:
        """Emit the rows, with their times where those are kept."""
        entries = self._entries(partition)
        while some := list(islice(entries, _AT_ONCE)):
            decoded = self.decoder.decode([value for _, value, _ in some])
            times = np.array([time for *_, time in some], np.int64)
            origin = Origin(self.name, [key for key, *_ in some], times, np.full(len(some), partition, np.int64))
            self.emit(Frame.of(decoded.columns, origin, decoded.rows))

    def _entries(self, partition: int) -> Iterator[tuple[bytes, bytes, int]]:
        """Key, value and time of every row, and of every version that is known."""
        for key, value in self.store(partition).range():
            if self.history_ms is not None:
                yield from ((key, row, time) for time, row in unpack(value) if row is not None)
            elif self.listeners:
                yield key, value[_TIME.size :], _TIME.unpack_from(value)[0]
            else:
                yield key, value, NO_TIMESTAMP

    def close(self, partition: int) -> None:
        """Let a partition go."""
        self._newest.pop(partition, None)
        if (store := self._open.pop(partition, None)) is not None:
            store.close()


def decoded_rows(decoder: Decoder, values: Sequence[bytes | None]) -> tuple[pa.RecordBatch, IntArray]:
    """Values that are there as columns, and the row of each one, -1 where there is none."""
    decoded = decoder.decode(list(values))
    rows = np.full(len(values), -1, np.int64)
    here = np.arange(len(values)) if decoded.rows is None else decoded.rows
    rows[here] = np.arange(len(here))
    return decoded.columns, rows
