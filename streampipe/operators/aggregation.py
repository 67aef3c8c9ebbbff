"""The aggregates of one node: columns made of their expressions, and accumulators fed with them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from streampipe.aggregates import Aggregate
from streampipe.operators.accumulators import accumulator
from streampipe.operators.effects import Effects
from streampipe.operators.expressions import Evaluator, ExpressionStep
from streampipe.operators.frame import Column, Frame, Mask
from streampipe.records import IntArray


class Aggregation:
    """Accumulators of several aggregates over columns of `schema`, by the aggregate's name.

    Raises TopologyError for an expression or an aggregate that makes no sense.
    """

    def __init__(self, node: str, effects: Effects, aggregates: Mapping[str, Aggregate], schema: pa.Schema) -> None:
        inputs = {n: a.column for n, a in aggregates.items() if a.column is not None}
        evaluate = Evaluator(node, [e.alias(n) for n, e in inputs.items()], schema) if inputs else None
        types = {f.name: f.type for f in evaluate.fields} if evaluate else {}
        self._inputs = ExpressionStep(node, effects, evaluate) if evaluate else None
        self.accumulators = {n: accumulator(node, n, a, types.get(n)) for n, a in aggregates.items()}
        self.fields = [pa.field(n, a.result_type, a.nullable) for n, a in self.accumulators.items()]
        """Columns of the results."""

    def evaluated(self, frame: Frame) -> tuple[Frame, dict[str, Column]]:
        """The rows whose expressions can be evaluated, perhaps none, and the columns for `update`."""
        return self._inputs.evaluated(frame) if self._inputs else (frame, {})

    def update(self, frame: Frame, columns: Mapping[str, Column], slots: IntArray) -> Mask:
        """Add row i to slot slots[i]; which rows were added: all but those that became dead letters.

        A row is in all aggregates or in none.
        """
        for name, one in self.accumulators.items():
            one.update(slots, columns.get(name), frame.timestamps)
        return np.ones(len(frame), np.bool_)

    def results(self, slots: IntArray) -> list[pa.Array]:
        """The columns of `fields` for these slots."""
        return [a.result(slots) for a in self.accumulators.values()]
