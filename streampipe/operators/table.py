"""Tables: the latest value by key, kept as the bytes that came, and decoded when something is looked up.

Keeping bytes makes a table small, makes its own topic its changelog, and makes a look-up one columnar decode of the
distinct rows found.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from streampipe.topology.nodes import Join, StreamJoin, TableSource

GLOBAL = -1
"""The one partition that a global table keeps all its rows in."""
_AT_ONCE = 10_000


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
        origin.mark(self._apply(origin.batch, decoded), OK)

    def load(self, batch: RecordBatch) -> list[str]:
        """Apply records outside processing (a restore, a global table); a line for each bad one, left out."""
        decoded = self.decode(batch)
        good = set(self._apply(batch, decoded).tolist())
        why = {f.row: failure_reason(f).message for f in decoded.failures}
        return [
            f"{batch.topic}[{batch.partitions[i]}]@{batch.offsets[i]}: {why.get(i, 'a table record needs a key')}"
            for i in range(len(batch))
            if i not in good
        ]

    def _apply(self, batch: RecordBatch, decoded: Decoded) -> IntArray:
        usable = np.ones(len(batch), np.bool_)
        usable[[f.row for f in decoded.failures]] = False
        usable &= np.array([key is not None for key in batch.keys], np.bool_)
        rows = np.flatnonzero(usable)
        homes = np.full(len(batch), GLOBAL, np.int64) if self.everywhere else batch.partitions
        for home in np.unique(homes[rows]).tolist():
            mine = rows[homes[rows] == home].tolist()
            keys = [key for i in mine if (key := batch.keys[i]) is not None]
            self.store(home).put_many(keys, [batch.values[i] for i in mine])
        return rows

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
            decoded = self.decoder.decode([value for _, value in some])
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
        found, rows = self._look_up(homes[groups.first], keys)
        row_of = rows[groups.of]
        hit = row_of >= 0
        if not self._left:
            frame, row_of = frame.filter(hit), row_of[hit]
        if len(frame):
            at = pa.array(row_of, mask=row_of < 0)
            added = {new: Column(arrow=found.column(old).take(at)) for new, old in self._added.items()}
            self.emit(frame.with_columns(frame.columns | added))

    def _look_up(self, homes: IntArray, keys: Sequence[bytes | None]) -> tuple[pa.RecordBatch, IntArray]:
        """Decoded rows of the keys that are there, and the row of each key, -1 where there is none."""
        values: list[bytes | None] = [None] * len(keys)
        for home in np.unique(homes).tolist():
            mine = [i for i in np.flatnonzero(homes == home).tolist() if keys[i] is not None]
            got = self._table.store(home).get_many([key for i in mine if (key := keys[i]) is not None])
            for i, value in zip(mine, got, strict=True):
                values[i] = value
        decoded = self._table.decoder.decode(values)
        rows = np.full(len(keys), -1, np.int64)
        here = np.arange(len(keys)) if decoded.rows is None else decoded.rows
        rows[here] = np.arange(len(here))
        return decoded.columns, rows


def added_columns(
    node: Join | StreamJoin, schema: pa.Schema, names: Sequence[str], key: Sequence[str], other: str
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
