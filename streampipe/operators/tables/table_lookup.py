"""Joins of a stream with a table: a look-up by key, of the row as it is or as it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streampipe.errors import TopologyError
from streampipe.operators.effects import Effects, Step
from streampipe.operators.frame import Column, Frame
from streampipe.operators.grouping import check_key_columns, distinct_keys, group
from streampipe.operators.tables.table import GLOBAL, TableStep
from streampipe.topology.nodes import Join, StreamJoin, TableJoin


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
        if self._table.history_ms is None:
            found, rows, _ = self._table.found(homes[groups.first], keys)
            row_of = rows[groups.of]
        else:
            found, row_of = self._table.found_at(homes, [keys[g] for g in groups.of.tolist()], frame.timestamps)
        hit = row_of >= 0
        if not self._left:
            frame, row_of = frame.filter(hit), row_of[hit]
        if len(frame):
            at = pa.array(row_of, mask=row_of < 0)
            added = {new: Column(arrow=found.column(old).take(at)) for new, old in self._added.items()}
            self.emit(frame.with_columns(frame.columns | added))


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
