"""Aggregates that a window can hold: `agg.count()`, `agg.sum("delay")`, `agg.quantile("delay", 0.95)`, ….

A column is a name or a Polars expression. Nulls are left out, as in SQL. What nothing gives: 0 for count and sum,
null for the others. Sums of integers are 64-bit; sums of floats are added in the order of the records, so that how
records are cut into batches never changes the last digit.

Beyond 64 bits a sum of integers wraps around, as in Java and so in Kafka Streams; cast to Float64 where sums may grow
so large. Not-a-number is a value: sum, mean, min and max of values with one among them are not-a-number. A quantile
leaves it out, and the infinities too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

AggregateKind = Literal["count", "sum", "mean", "min", "max", "quantile", "collect"]

RELATIVE_ERROR = 0.01
"""Guaranteed relative error of `quantile`."""


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """One aggregate: what to do with which expression (None: whole records). `q` is for quantiles."""

    kind: AggregateKind
    column: pl.Expr | None = None
    q: float = 0.0
    limit: int = 0
    """Largest number of values that it keeps, where it keeps values."""


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
    """Smallest value of a numeric or temporal column."""
    return Aggregate("min", _expression(column))


def max(column: str | pl.Expr) -> Aggregate:  # noqa: A001
    """Largest value of a numeric or temporal column."""
    return Aggregate("max", _expression(column))


def quantile(column: str | pl.Expr, q: float) -> Aggregate:
    """Approximate quantile, 0 <= q <= 1, as a double within 1 % of the exact one (rank floor(q * (n - 1))).

    A DDSketch (Masson, Rim, Lee: DDSketch, VLDB 2019): counts in buckets of a fixed relative width, so merging in
    any order gives the same answer. Magnitudes below 1e-9 count as zero. Raises ValueError for another q.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"quantile {q}: must be between 0 and 1")
    return Aggregate("quantile", _expression(column), q)


def collect(column: str | pl.Expr, *, limit: int = 1_000) -> Aggregate:
    """The values as a list, in arrival order; the first `limit` of them, what comes after is left out.

    The list of what nothing gives is empty. Raises ValueError for a limit below 1.
    """
    if limit < 1:
        raise ValueError(f"collect limit {limit}: must be at least 1")
    return Aggregate("collect", _expression(column), limit=limit)
