"""Operators without memory: filter, with_columns, select, expect, branch, merge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from streampipe.errors import TopologyError
from streampipe.operators.effects import Effects, Reason, Step
from streampipe.operators.expressions import Evaluator, ExpressionStep
from streampipe.operators.frame import Column, Frame, Mask


def _predicates(node: str, expressions: Sequence[pl.Expr], schema: pa.Schema) -> Evaluator:
    # each under a name of its own: predicates on one column would otherwise share its name
    evaluate = Evaluator(node, [e.alias(f"p{i}") for i, e in enumerate(expressions)], schema)
    for field, expr in zip(evaluate.fields, expressions, strict=True):
        if not pa.types.is_boolean(field.type):
            raise TopologyError(f"node {node!r}: {expr} is {field.type}, not Boolean")
    return evaluate


def _mask(column: Column, *, null: bool) -> Mask:
    mask: Mask = column.polars.fill_null(null).to_numpy()
    return mask


class FilterStep(ExpressionStep):
    """Rows for which the predicate is true go on."""

    def __init__(self, name: str, effects: Effects, predicate: pl.Expr, schema: pa.Schema) -> None:
        super().__init__(name, effects, _predicates(name, [predicate], schema))
        self.schema = schema

    def process(self, frame: Frame) -> None:
        """Filter."""
        frame, made = self.evaluated(frame)
        self.emit(frame.filter(_mask(made["p0"], null=False)))


class WithColumnsStep(ExpressionStep):
    """Adds or replaces columns."""

    def __init__(self, name: str, effects: Effects, columns: Sequence[pl.Expr], schema: pa.Schema) -> None:
        super().__init__(name, effects, Evaluator(name, columns, schema))
        fields = {f.name: f for f in schema} | {f.name: f for f in self._evaluate.fields}
        self.schema = pa.schema(fields.values())

    def process(self, frame: Frame) -> None:
        """Add the columns."""
        frame, made = self.evaluated(frame)
        self.emit(frame.with_columns(frame.columns | made))


class SelectStep(ExpressionStep):
    """Keeps just the named columns."""

    def __init__(self, name: str, effects: Effects, columns: Sequence[pl.Expr], schema: pa.Schema) -> None:
        super().__init__(name, effects, Evaluator(name, columns, schema))
        self.schema = pa.schema(self._evaluate.fields)

    def process(self, frame: Frame) -> None:
        """Select."""
        frame, made = self.evaluated(frame)
        self.emit(frame.with_columns({name: made[name] for name in self._evaluate.names}))


class ExpectStep(ExpressionStep):
    """Rows that break a rule become dead letters naming the first one they break."""

    def __init__(self, name: str, effects: Effects, rules: dict[str, pl.Expr], schema: pa.Schema) -> None:
        super().__init__(name, effects, _predicates(name, list(rules.values()), schema))
        self._rules = list(rules)
        self.schema = schema

    def process(self, frame: Frame) -> None:
        """Validate."""
        frame, made = self.evaluated(frame)
        broken = np.stack([~_mask(made[f"p{i}"], null=True) for i in range(len(self._rules))])
        bad: Mask = np.asarray(broken.any(axis=0))
        if bad.any():
            first = broken.argmax(axis=0)
            self.effects.dead_letters(
                frame, np.flatnonzero(bad), self.name, lambda row: _broken(self._rules[int(first[row])])
            )
            frame = frame.filter(~bad)
        self.emit(frame)


def _broken(rule: str) -> Reason:
    return Reason("validation", "ValidationError", f"rule {rule!r} is broken", {"rule": rule})


class BranchStep(Step):
    """Rows that satisfy this arm's predicate and none of an earlier arm."""

    def __init__(self, name: str, effects: Effects, predicates: Sequence[pl.Expr], arm: int, schema: pa.Schema) -> None:
        super().__init__(name, effects)
        self._arms = [
            ExpressionStep(name, effects, _predicates(name, [predicate], schema)) for predicate in predicates[: arm + 1]
        ]
        self.schema = schema

    def process(self, frame: Frame) -> None:
        """Filter by the arm."""
        *earlier, mine = self._arms
        for arm in earlier:
            frame, made = arm.evaluated(frame)
            frame = frame.filter(~_mask(made["p0"], null=False))
        frame, made = mine.evaluated(frame)
        self.emit(frame.filter(_mask(made["p0"], null=False)))


class MergeStep(Step):
    """Rows of several inputs with the same columns, in one order of columns.

    Rows that came from the same records, through different arms, are put back into the order of the records before
    they go on, so that their order does not depend on how records were cut into batches. Hence frames wait here until
    `settle`, which the task calls when a batch is through all steps above.
    """

    def __init__(self, name: str, effects: Effects, schemas: Sequence[pa.Schema]) -> None:
        super().__init__(name, effects)
        first = schemas[0]
        for other in schemas[1:]:
            if {f.name: f.type for f in first} != {f.name: f.type for f in other}:
                raise TopologyError(
                    f"node {name!r}: the merged streams have different columns, ({_columns(first)}) and "
                    f"({_columns(other)}); select() the same ones before merging"
                )
        self.schema = pa.schema(
            [pa.field(f.name, f.type, any(s.field(f.name).nullable for s in schemas)) for f in first]
        )
        self._waiting: list[Frame] = []

    def process(self, frame: Frame) -> None:
        """Keep until `settle`."""
        self._waiting.append(frame.with_columns({name: frame.columns[name] for name in self.schema.names}))

    def settle(self) -> None:
        """Pass on what waits, in the order of the records it came from."""
        waiting, self._waiting = self._waiting, []
        by_origin: dict[int, list[Frame]] = {}
        for frame in waiting:
            by_origin.setdefault(id(frame.origin), []).append(frame)
        for frames in by_origin.values():
            self.emit(frames[0] if len(frames) == 1 else self._in_order(frames))

    def _in_order(self, frames: list[Frame]) -> Frame:
        columns = {
            field.name: Column(arrow=pa.concat_arrays([f.columns[field.name].arrow.cast(field.type) for f in frames]))
            for field in self.schema
        }
        rows = np.concatenate([f.indexes for f in frames])
        return Frame(columns, frames[0].origin, rows).take(np.argsort(rows, kind="stable"))


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{f.name}: {f.type}" for f in schema)
