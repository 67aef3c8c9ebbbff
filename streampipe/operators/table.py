"""Tables: the latest value by key, kept as the bytes that came, and decoded when something is looked up.

Keeping bytes makes a table small, makes its own topic its changelog, and makes a look-up one columnar decode of the
distinct rows found.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa

from streampipe.errors import TopologyError
from streampipe.operators.edges import failure_reason, report_failures
from streampipe.operators.effects import OK, Effects, Reason, Step
from streampipe.operators.frame import Column, Frame, Origin
from streampipe.operators.grouping import check_key_columns, distinct_keys, group
from streampipe.operators.stateful import StatefulStep
from streampipe.records import NO_TIMESTAMP, IntArray, RecordBatch
from streampipe.schemas.port import Decoded, Decoder
from streampipe.state.port import StateStore, Stores
from streampipe.topology.nodes import Join, StreamJoin, TableJoin, TableSource

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
        self._apply(origin.batch, rows)
        origin.mark(rows, OK)
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

    def _apply(self, batch: RecordBatch, rows: IntArray) -> None:
        homes = np.full(len(batch), GLOBAL, np.int64) if self.everywhere else batch.partitions
        for home in np.unique(homes[rows]).tolist():
            mine = rows[homes[rows] == home].tolist()
            keys = [key for i in mine if (key := batch.keys[i]) is not None]
            values = [batch.values[i] for i in mine]
            if self.listeners:
                times = map(_TIME.pack, batch.timestamps[mine].tolist())
                values = [value if value is None else time + value for time, value in zip(times, values, strict=True)]
            self.store(home).put_many(keys, values)

    def store(self, partition: int) -> StateStore:
        """Rows of a partition."""
        if partition not in self._open:
            self._open[partition] = self._stores.open(self.name, partition)
        return self._open[partition]

    def open(self, partition: int) -> None:
        """Take a partition on, without rows."""
        self.store(partition)

    def restore(self, partition: int, batch: RecordBatch) -> None:  # noqa: ARG002 - the batch knows its partition
        """Apply rows; bad ones met their fate when they were processed."""
        self.load(batch)

    def show(self, partition: int) -> None:
        """Emit the rows; their times are not kept."""
        entries = self.store(partition).range()
        while some := list(islice(entries, _AT_ONCE)):
            values = [value[_TIME.size :] if self.listeners else value for _, value in some]
            decoded = self.decoder.decode(values)
            unknown = np.full(len(some), NO_TIMESTAMP, np.int64)
            origin = Origin(self.name, [key for key, _ in some], unknown, np.full(len(some), partition, np.int64))
            self.emit(Frame.of(decoded.columns, origin, decoded.rows))

    def close(self, partition: int) -> None:
        """Let a partition go."""
        if (store := self._open.pop(partition, None)) is not None:
            store.close()


class JoinStep(Step):
    """Adds a table's columns to each row that has a match; a left join keeps the others with nulls."""

    def __init__(self, node: Join, effects: Effects, schema: pa.Schema, table: TableStep) -> None:
        super().__init__(node.name, effects)
        self._table, self._on, self._left = table, node.on, node.how == "left"
        right = table.decoder.arrow
        check_key_columns(node.name, node.on, schema)
        self._added = added_columns(node, schema, right.names, table.key, f"table {table.topic!r}")
        self.schema = pa.schema([
            *schema,
            *(pa.field(new, right.field(old).type, self._left or right.field(old).nullable)
              for new, old in self._added.items()),
        ])  # fmt: skip

    def process(self, frame: Frame) -> None:
        """Look up and join."""
        homes = np.full(len(frame), GLOBAL, np.int64) if self._table.everywhere else frame.partitions
        on = [frame.columns[c] for c in self._on]
        groups = group(on, homes)
        named = zip(self._table.key, on, strict=True)  # the key says the table's names, whatever the stream calls them
        keys = distinct_keys(dict(named), groups)
        found, rows, _ = self._table.found(homes[groups.first], keys)
        row_of = rows[groups.of]
        hit = row_of >= 0
        if not self._left:
            frame, row_of = frame.filter(hit), row_of[hit]
        if len(frame):
            at = pa.array(row_of, mask=row_of < 0)
            added = {new: Column(arrow=found.column(old).take(at)) for new, old in self._added.items()}
            self.emit(frame.with_columns(frame.columns | added))


def decoded_rows(decoder: Decoder, values: Sequence[bytes | None]) -> tuple[pa.RecordBatch, IntArray]:
    """Values that are there as columns, and the row of each one, -1 where there is none."""
    decoded = decoder.decode(list(values))
    rows = np.full(len(values), -1, np.int64)
    here = np.arange(len(values)) if decoded.rows is None else decoded.rows
    rows[here] = np.arange(len(here))
    return decoded.columns, rows


def added_columns(
    node: Join | StreamJoin | TableJoin, schema: pa.Schema, names: Sequence[str], key: Sequence[str], other: str
) -> dict[str, str]:
    """New column name -> the column of the right side. Raises TopologyError for one that is missing, or taken."""
    wanted = node.columns if node.columns is not None else [n for n in names if n not in key]
    for column in wanted:
        if column not in names:
            raise TopologyError(f"node {node.name!r}: {other} has no column {column!r}, only {', '.join(names)}")
    added = {node.prefix + n: n for n in wanted}
    if clash := sorted(set(added) & set(schema.names)):
        raise TopologyError(
            f"node {node.name!r}: stream and {other} both have {', '.join(clash)}; "
            f"give the join a prefix=... or name the columns=[...] to add"
        )
    return added
