"""The aggregates of one node: columns made of their expressions, and accumulators fed with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from streampipe.aggregates import Aggregate
from streampipe.errors import ProcessingStopped
from streampipe.operators.accumulators import accumulator
from streampipe.operators.accumulators.functions import FunctionAccumulator, Values
from streampipe.operators.effects import Effects, Reason, positions
from streampipe.operators.expressions import Evaluator, ExpressionStep
from streampipe.operators.frame import Column, Frame, Mask
from streampipe.operators.functions.function import place
from streampipe.policies import Fatal
from streampipe.records import IntArray


class Aggregation:
    """Accumulators of several aggregates over columns of `schema`, by the aggregate's name.

    Raises TopologyError for an expression or an aggregate that makes no sense.
    """

    def __init__(self, node: str, effects: Effects, aggregates: Mapping[str, Aggregate], schema: pa.Schema) -> None:
        self._node, self._effects = node, effects
        inputs = {n: a.column for n, a in aggregates.items() if a.column is not None}
        evaluate = Evaluator(node, [e.alias(n) for n, e in inputs.items()], schema) if inputs else None
        types = {f.name: f.type for f in evaluate.fields} if evaluate else {}
        self._inputs = ExpressionStep(node, effects, evaluate) if evaluate else None
        self.accumulators = {n: accumulator(node, n, a, types.get(n)) for n, a in aggregates.items()}
        self._functions = {n: a for n, a in self.accumulators.items() if isinstance(a, FunctionAccumulator)}
        self._columns = {n: a for n, a in self.accumulators.items() if n not in self._functions}
        self.fields = [pa.field(n, a.result_type, a.nullable) for n, a in self.accumulators.items()]
        """Columns of the results."""

    def evaluated(self, frame: Frame) -> tuple[Frame, dict[str, Column]]:
        """The rows whose expressions can be evaluated, perhaps none, and the columns for `update`."""
        return self._inputs.evaluated(frame) if self._inputs else (frame, {})

    def update(self, frame: Frame, columns: Mapping[str, Column], slots: IntArray) -> Mask:
        """Add row i to slot slots[i]. Which rows were added: those that are not are dead letters.

        A row is in all aggregates or in none. Raises ProcessingStopped when a function raises Fatal.
        """
        added = np.ones(len(frame), np.bool_)
        timestamps = frame.timestamps
        if self._functions and (failed := self._call(frame, columns, slots)):
            self._effects.dead_letters(frame, positions(failed), self._node, failed.__getitem__)
            added[list(failed)] = False
            kept = pa.array(added)
            columns = {n: c.filter(kept) for n, c in columns.items()}
            slots, timestamps = slots[added], timestamps[added]
        for name, one in self._columns.items():
            one.update(slots, columns.get(name), timestamps)
        return added

    def _call(self, frame: Frame, columns: Mapping[str, Column], slots: IntArray) -> dict[int, Reason]:
        """Call the users' functions with each row in turn. Those rows for which one of them raised change nothing."""
        failed: dict[int, Reason] = {}
        values = {n: Values(columns[n].arrow if n in columns else _whole(frame)) for n in self._functions}
        calls = [(n, a, values[n]) for n, a in self._functions.items()]
        for row, slot in enumerate(slots.tolist()):
            following: dict[str, Any] = {}
            try:
                for name, one, of in calls:
                    following[name] = one.following(slot, of[row])
            except Exception as error:  # noqa: BLE001 - whatever user code raises is this record's fate, not ours
                failed[row] = self._reason(frame, row, name, error)
                continue
            for name, one, _ in calls:
                one.objects[slot] = following[name]
        return failed

    def _reason(self, frame: Frame, row: int, name: str, error: Exception) -> Reason:
        if isinstance(error, Fatal):
            record, _ = frame.origin.record(int(frame.indexes[row]), frame.columns, row)
            raise ProcessingStopped(
                f"aggregate {name!r} of {self._node!r} raised Fatal at "
                f"{record.topic}[{record.partition}]@{record.offset}: {error}"
            ) from error
        # the text of a foreign exception may quote the payload, so only its type and place are kept
        return Reason("processing", type(error).__name__, f"aggregate {name!r}: {place(error)}")

    @property
    def calls_functions(self) -> bool:
        """Whether functions of the user's have a say, so that a row may turn out to be a dead letter."""
        return bool(self._functions)

    def merge(self, into: IntArray, source: IntArray) -> None:
        """Fold slot source[i] into slot into[i], in the order given; see `Accumulator.merge`."""
        for one in self.accumulators.values():
            one.merge(into, source)

    def results(self, slots: IntArray) -> list[pa.Array]:
        """The columns of `fields` for these slots."""
        return [a.result(slots) for a in self.accumulators.values()]


def _whole(frame: Frame) -> pa.Array:
    """Rows as one column of structs."""
    columns = {n: c.arrow for n, c in frame.columns.items()}
    return pa.StructArray.from_arrays(list(columns.values()), list(columns))
