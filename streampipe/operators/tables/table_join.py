"""Joins of two tables: a change of either one gives the joined row as it is now, or says that it is gone.

The rules are Kafka Streams' (KTableKTableInnerJoin and its siblings), told by its answers: a change gives at most one
result, with the later time of the two rows; a delete of what was not there gives none, nor does a change that the
join cannot show (of an inner join without the other row; of a left join's right row without the left one).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streampipe.errors import TopologyError
from streampipe.operators.edges import RETRACTED
from streampipe.operators.effects import Effects, Step
from streampipe.operators.frame import Frame, Mask, Origin
from streampipe.operators.tables.table import Change, TableStep, decoded_rows
from streampipe.operators.tables.table_lookup import added_columns
from streampipe.records import IntArray
from streampipe.topology.nodes import TableJoin

LEFT, RIGHT = 0, 1


class TableJoinStep(Step):
    """Listens to both tables. Columns: the left ones, those added of the right, and `retracted`."""

    def __init__(self, node: TableJoin, effects: Effects, left: TableStep, right: TableStep) -> None:
        super().__init__(node.name, effects)
        self._tables, self._how = (left, right), node.how
        schemas = left.decoder.arrow, right.decoder.arrow
        _check_keys(node, left, right)
        self._added = added_columns(node, schemas[LEFT], schemas[RIGHT].names, right.key, f"table {right.topic!r}")
        if RETRACTED in {*schemas[LEFT].names, *self._added}:
            raise TopologyError(f"node {node.name!r}: a column cannot be named {RETRACTED!r}, as one of the result is")
        others = [(schemas[RIGHT].field(old).type, new) for new, old in self._added.items()]
        self.schema = pa.schema([
            *(f.with_nullable(f.nullable or f.name not in left.key) for f in schemas[LEFT]),
            *(pa.field(new, kind) for kind, new in others),
            pa.field(RETRACTED, pa.bool_(), nullable=False),
        ])  # fmt: skip
        left.listeners.append(lambda change: self._changed(LEFT, change))
        right.listeners.append(lambda change: self._changed(RIGHT, change))

    def _changed(self, side: int, change: Change) -> None:
        """Results of the changes of one table, in their order."""
        theirs, their_rows, their_times = self._tables[1 - side].found(change.partitions, change.keys)
        here, present = change.rows >= 0, their_rows >= 0
        told = here | np.array([value is not None for value in change.before], np.bool_)
        if self._how == "inner" or (self._how == "left" and side == RIGHT):
            told &= present
        at = np.flatnonzero(told)
        if not len(at):
            return
        exists = self._exists(side, here, present)
        nowhere = (~here & ~present).tolist()  # such a key is known from the row that was deleted alone
        before = [value if lost else None for value, lost in zip(change.before, nowhere, strict=True)]
        old, old_rows = decoded_rows(self._tables[side].decoder, before)
        mine = change.columns, np.where(exists, change.rows, -1)
        other = theirs, np.where(exists, their_rows, -1)
        left, right = (mine, other) if side == LEFT else (other, mine)
        columns = {name: _taken(*left, name, at) for name in self._tables[LEFT].decoder.arrow.names}
        columns |= {new: _taken(*right, source, at) for new, source in self._added.items()}
        rows_of = {side: (change.columns, change.rows), 1 - side: (theirs, their_rows)}
        for name, right_name in zip(self._tables[LEFT].key, self._tables[RIGHT].key, strict=True):
            names = {LEFT: name, RIGHT: right_name}
            known = [_taken(*rows_of[s], names[s], at) for s in (LEFT, RIGHT)]
            columns[name] = pc.coalesce(*known, _taken(old, old_rows, names[side], at))
        columns[RETRACTED] = pa.array(~exists[at])
        times = np.maximum(change.times, np.where(present, their_times, change.times))[at]
        keys: Sequence[bytes | None] = [change.keys[i] for i in at.tolist()]
        rows = pa.RecordBatch.from_arrays([columns[n] for n in self.schema.names], schema=self.schema)
        self.emit(Frame.of(rows, Origin(self.name, keys, times, change.partitions[at])))

    def _exists(self, side: int, here: Mask, present: Mask) -> Mask:
        """Which of the joined rows there are after the change."""
        if self._how == "inner":
            return here & present
        if self._how == "left":
            return here if side == LEFT else present
        return here | present


def _taken(columns: pa.RecordBatch, rows: IntArray, name: str, at: IntArray) -> pa.Array:
    """A column at these rows, null where a row is negative."""
    wanted = rows[at]
    return columns.column(name).take(pa.array(wanted, mask=wanted < 0))


def _check_keys(node: TableJoin, left: TableStep, right: TableStep) -> None:
    def types(table: TableStep) -> list[pa.DataType]:
        return [table.decoder.arrow.field(column).type for column in table.key]

    named = len(left.key) > 1  # a key of several columns says their names
    if types(left) != types(right) or (named and left.key != right.key):
        shown = [", ".join(f"{c} {t}" for c, t in zip(t.key, types(t), strict=True)) for t in (left, right)]
        raise TopologyError(
            f"node {node.name!r}: table {left.topic!r} is keyed by ({shown[0]}) and table {right.topic!r} by "
            f"({shown[1]}); tables are joined by their keys, which must be the same"
        )
