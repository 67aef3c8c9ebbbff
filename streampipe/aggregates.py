"""Aggregates that a window can hold: `agg.count()`, `agg.sum("delay")`, `agg.quantile("delay", 0.95)`, ….

A column is a name or a Polars expression. Nulls are left out, as in SQL. What nothing gives: 0 for count, sum and
approx_distinct, an empty list for lists, the initial state for aggregate, null for the others. Sums of integers are
64-bit; sums of floats are added in the order of the records, so that how records are cut into batches never changes
the last digit.

Beyond 64 bits a sum of integers wraps around, as in Java and so in Kafka Streams; cast to Float64 where sums may grow
so large. Not-a-number is a value: sum, mean, stddev, min and max of values with one among them are not-a-number, and
top_k holds it for the largest. A quantile leaves it out, and the infinities too.

All of them merge: session and sliding windows put the states of parts together. Sums, means and deviations of floats
may then differ in their last digits from those of values added one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
import pyarrow as pa

from streampipe.errors import TopologyError

AggregateKind = Literal[
    "count", "sum", "mean", "min", "max", "stddev", "quantile", "approx_distinct", "first", "last", "top_k", "collect",
    "reduce", "aggregate",
]  # fmt: skip

RELATIVE_ERROR = 0.01
"""Guaranteed relative error of `quantile`."""


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A user's own function, and what goes with it. For `reduce` only `function` is used."""

    function: Callable[[Any, Any], Any]
    init: Any = None
    merge: Callable[[Any, Any], Any] | None = None
    type: pa.DataType | pl.DataType | type[pl.DataType] | None = None
    """Of the result; None: that of `init`."""


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """One aggregate: what to do with which expression (None: whole records)."""

    kind: AggregateKind
    column: pl.Expr | None = None
    q: float = 0.0
    """Which quantile."""
    k: int = 0
    """Largest number of values that it keeps, where it keeps values."""
    precision: int = 0
    """Of approx_distinct: there are 2^precision registers."""
    population: bool = False
    """Standard deviation of the population, not of a sample."""
    fold: Fold | None = None

    def __post_init__(self) -> None:
        optional = self.kind in {"count", "aggregate"} and self.column is None
        if not optional and not isinstance(self.column, pl.Expr):
            raise TopologyError(f"agg.{self.kind} column={self.column!r}: use the name of a column or an expression")

    @property
    def mergeable(self) -> bool:
        """Whether two states can be put together, which session windows need."""
        return self.kind != "aggregate" or (self.fold is not None and self.fold.merge is not None)


def _expression(column: str | pl.Expr) -> pl.Expr:
    return pl.col(column) if isinstance(column, str) else column


def count(column: str | pl.Expr | None = None) -> Aggregate:
    """Number of records, or of the records in which `column` is not null."""
    return Aggregate("count", None if column is None else _expression(column))


def sum(column: str | pl.Expr) -> Aggregate:  # noqa: A001 - read as agg.sum, the field's own word
    """Sum; a Boolean column counts its trues."""
    return Aggregate("sum", _expression(column))


def mean(column: str | pl.Expr) -> Aggregate:
    """Arithmetic mean as a double."""
    return Aggregate("mean", _expression(column))


def min(column: str | pl.Expr) -> Aggregate:  # noqa: A001
    """Smallest value of a numeric, temporal or text column; text in the order of its code points."""
    return Aggregate("min", _expression(column))


def max(column: str | pl.Expr) -> Aggregate:  # noqa: A001
    """Largest value of a numeric, temporal or text column; text in the order of its code points."""
    return Aggregate("max", _expression(column))


def first(column: str | pl.Expr) -> Aggregate:
    """Value of the record with the smallest event time; of several with the same, of the first to arrive."""
    return Aggregate("first", _expression(column))


def last(column: str | pl.Expr) -> Aggregate:
    """Value of the record with the largest event time; of several with the same, of the last to arrive."""
    return Aggregate("last", _expression(column))


def stddev(column: str | pl.Expr, *, population: bool = False) -> Aggregate:
    """Standard deviation as a double: of a sample (n - 1; SQL's STDDEV_SAMP), or of the population (STDDEV_POP)."""
    return Aggregate("stddev", _expression(column), population=population)


def quantile(column: str | pl.Expr, q: float) -> Aggregate:
    """Approximate quantile, 0 <= q <= 1, as a double within 1 % of the exact one (rank floor(q * (n - 1))).

    A DDSketch (Masson, Rim, Lee: DDSketch, VLDB 2019): counts in buckets of a fixed relative width, so merging in
    any order gives the same answer. Magnitudes below 1e-9 count as zero. Raises ValueError for another q.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"quantile {q}: must be between 0 and 1")
    return Aggregate("quantile", _expression(column), q)


def approx_distinct(column: str | pl.Expr, *, precision: int = 12) -> Aggregate:
    """Approximate number of distinct values, of any type but nested ones.

    Exact below 2^precision / 8 distinct values (512), barring collisions of 64-bit hashes. Beyond, a HyperLogLog of
    2^precision bytes: standard error 1.04 / sqrt(2^precision), which is 1.6 % (95 % of results are within 3.3 %).
    Raises ValueError for a precision outside 7 to 16.
    """
    if not 7 <= precision <= 16:
        raise ValueError(f"approx_distinct precision {precision}: must be between 7 and 16")
    return Aggregate("approx_distinct", _expression(column), precision=precision)


def top_k(column: str | pl.Expr, k: int) -> Aggregate:
    """The k largest values of a numeric, temporal or text column as a list, the largest first, equal ones kept.

    Raises ValueError for a k below 1.
    """
    if k < 1:
        raise ValueError(f"top_k k {k}: must be at least 1")
    return Aggregate("top_k", _expression(column), k=k)


def collect(column: str | pl.Expr, *, limit: int = 1_000) -> Aggregate:
    """The values as a list, in arrival order; the first `limit` of them, what comes after is left out.

    Raises ValueError for a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"collect limit {limit}: must be at least 1")
    return Aggregate("collect", _expression(column), k=limit)


def reduce(function: Callable[[Any, Any], Any], column: str | pl.Expr) -> Aggregate:
    """What `function(so_far, value)` makes of the values in arrival order, starting from the first one.

    It gives a value of the column's own type, and merges two results in the same way. If it raises, or gives
    something else, the record is a dead letter of class `processing`, and no aggregate beside it counts it either.
    """
    return Aggregate("reduce", _expression(column), fold=Fold(function))


def aggregate(
    init: Any,
    function: Callable[[Any, Any], Any],
    column: str | pl.Expr | None = None,
    *,
    merge: Callable[[Any, Any], Any] | None = None,
    type: pa.DataType | pl.DataType | type[pl.DataType] | None = None,  # noqa: A002
) -> Aggregate:
    """What `function(state, value)` makes of the values in arrival order, starting from `init`.

    The state is anything that JSON can say; it is given back as it came from JSON (a tuple as a list). The value is
    the column's, or without a column the whole record as a dict. `merge(earlier, later)` puts two states together;
    session windows need it. The result is the last state, of this type (Arrow's or Polars'); without one, of the type
    of `init`. A type of fewer fields than the state has gives just those. What raises, or gives a state that does not
    fit, makes the record a dead letter of class `processing` and leaves the state as it was.
    """
    return Aggregate(
        "aggregate", None if column is None else _expression(column), fold=Fold(function, init, merge, type)
    )
