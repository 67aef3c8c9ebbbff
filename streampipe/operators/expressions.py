"""Polars expressions, checked once at start and evaluated on just the columns they read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa

from streampipe.errors import TopologyError
from streampipe.operators.effects import Effects, Reason, Step, positions
from streampipe.operators.frame import Column, Frame
from streampipe.operators.isolate import FAILURES, failing_rows


def empty(schema: pa.Schema) -> pl.DataFrame:
    """No rows, with these columns: enough for Polars to check names and types of an expression.

    Column types that Polars does not know are left out, so that an expression that reads one is refused at start.
    """
    columns = {}
    for field in schema:
        try:
            columns[field.name] = pl.Series(values=pl.from_arrow(pa.array([], field.type)))
        except FAILURES:
            continue
    return pl.DataFrame(columns)


class Evaluator:
    """Evaluates several expressions at once; `names` are their outputs.

    Raises TopologyError for an unknown column, a type error, or an expression whose answer for a row depends on
    other rows (an aggregate, a shift): how records are cut into batches must not change results.
    """

    def __init__(self, node: str, expressions: Sequence[pl.Expr], schema: pa.Schema) -> None:
        frame = empty(schema)
        try:
            planned = frame.select(expressions) if len(frame.columns) else pl.select(*expressions).clear()
            flat = [e for expr in expressions for e in _expanded(expr, frame)]
        except pl.exceptions.PolarsError as error:
            raise TopologyError(f"node {node!r}: {_explained(error, schema.names)}") from None
        for expr in flat:
            _check_row_by_row(node, expr)
        self.names: list[str] = planned.columns
        self.fields = [_field(planned[name], schema, expr) for name, expr in zip(planned.columns, flat, strict=True)]
        self._picked = {n: roots[0] for n, e in zip(self.names, flat, strict=True) if (roots := _pick(e))}
        self._computed = [e for n, e in zip(self.names, flat, strict=True) if n not in self._picked]
        self._roots = [r for e in self._computed for r in e.meta.root_names()]

    def __call__(self, frame: Frame) -> dict[str, Column]:
        """One column for each name."""
        out = {name: frame.columns[source] for name, source in self._picked.items()}
        if self._computed:
            inputs = frame.polars(self._roots)
            # with_columns, since a select of literals alone would give one row
            computed = inputs.with_columns(self._computed)
            out |= {name: Column(polars=computed[name]) for name in self.names if name not in self._picked}
        return out


def _expanded(expr: pl.Expr, frame: pl.DataFrame) -> list[pl.Expr]:
    """Selectors and multi-column expressions as single expressions, in output order."""
    if not expr.meta.has_multiple_outputs():
        return [expr]
    names = frame.select(expr).columns
    if expr.meta.is_column_selection():
        return [pl.col(name) for name in names]
    raise pl.exceptions.InvalidOperationError(f"write one expression for each of the columns {', '.join(names)}")


def _pick(expr: pl.Expr) -> list[str]:
    """The one column that an expression merely picks, perhaps under another name."""
    return expr.meta.root_names() if expr.meta.undo_aliases().meta.is_column() else []


def _field(series: pl.Series, schema: pa.Schema, expr: pl.Expr) -> pa.Field:
    if roots := _pick(expr):
        return schema.field(roots[0]).with_name(series.name)
    return pa.field(series.name, arrow_type(series), nullable=True)


def arrow_type(series: pl.Series) -> pa.DataType:
    """Arrow type of a series, as codecs want it: strings and binaries in their plain form."""
    kind = series.to_arrow().type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_dictionary(kind):
        return pa.string()
    return kind


def _check_row_by_row(node: str, expr: pl.Expr) -> None:
    pending = [expr]
    while pending:
        part = pending.pop()
        try:
            literal = part.meta.is_scalar() and not part.meta.root_names()
            fine = part.meta.is_row_separable() and (literal or part.meta.is_length_preserving())
        except pl.exceptions.PolarsError:
            _check_function_alone(node, part)
            fine = True
        if not fine:
            raise TopologyError(
                f"node {node!r}: {expr} looks at other rows than its own, or makes more or fewer of them, so its "
                f"result would depend on how records are cut into batches; use window(...).agg(...) for aggregates"
            )
        pending += part.meta.pop()


def _check_function_alone(node: str, part: pl.Expr) -> None:
    """Polars tells nothing about what stands around a Python function, and of the function only its author knows."""
    bare = part.meta.undo_aliases()
    if not str(bare).endswith(".python_udf()"):
        raise TopologyError(
            f"node {node!r}: {bare} cannot be checked, since Polars knows nothing about what surrounds a Python "
            f"function; give the function's result a column of its own in a with_columns before this"
        )


class ExpressionStep(Step):
    """A step that evaluates expressions. Rows for which one cannot be evaluated are dead letters."""

    def __init__(self, name: str, effects: Effects, evaluate: Evaluator) -> None:
        super().__init__(name, effects)
        self._evaluate = evaluate

    def evaluated(self, frame: Frame) -> tuple[Frame, dict[str, Column]]:
        """The rows that can be evaluated, perhaps none, and the columns made for them."""
        try:
            return frame, self._evaluate(frame)
        except FAILURES:
            failed = failing_rows(frame, self._evaluate)
        self.effects.dead_letters(frame, positions(failed), self.name, lambda row: _unevaluable(failed[row]))
        kept = np.ones(len(frame), np.bool_)
        kept[list(failed)] = False
        frame = frame.filter(kept)
        return frame, self._evaluate(frame)


def _unevaluable(error: BaseException) -> Reason:
    # the text of the error quotes values
    return Reason("processing", type(error).__name__, "an expression cannot be evaluated for this record")


def _explained(error: Exception, columns: Sequence[str]) -> str:
    """The first line of Polars' message, with the columns there are and the one that was perhaps meant."""
    what = str(error).strip().splitlines()[0].partition("; valid columns: ")[0]
    unknown = re.fullmatch('unable to find column "(.*)"', what)
    near = difflib.get_close_matches(unknown[1], columns, n=1) if unknown else []
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{what}{meant}; columns here: {', '.join(columns) or 'none'}"
