"""The accumulator that an aggregate needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from streampipe.aggregates import Aggregate, Fold
from streampipe.errors import TopologyError
from streampipe.operators.accumulators import functions
from streampipe.operators.accumulators.base import Accumulator
from streampipe.operators.accumulators.deviation import Deviation
from streampipe.operators.accumulators.distinct import ApproxDistinct
from streampipe.operators.accumulators.edges import NumberEdge, ObjectEdge
from streampipe.operators.accumulators.extremes import Extreme
from streampipe.operators.accumulators.lists import Collect, Ranked, TextExtreme
from streampipe.operators.accumulators.moments import Count, Mean, Sum
from streampipe.operators.accumulators.quantile import Quantile
from streampipe.operators.expressions import arrow_type


def accumulator(node: str, name: str, aggregate: Aggregate, kind: pa.DataType | None) -> Accumulator:
    """The accumulator of an aggregate over a column of this type (None: over whole records).

    Raises TopologyError when it makes no sense.
    """
    if aggregate.kind == "count":
        return Count()
    if aggregate.kind == "aggregate":
        assert aggregate.fold is not None
        return _fold(f"node {node!r}: {name}=agg.aggregate(...)", aggregate.fold)
    assert kind is not None
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    added = numeric or pa.types.is_boolean(kind)
    ordered = numeric or pa.types.is_temporal(kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)
    some = not pa.types.is_null(kind)
    makers: dict[str, tuple[bool, Callable[[], Accumulator]]] = {
        "sum": (added, lambda: Sum(kind)),
        "mean": (added, Mean),
        "stddev": (added, lambda: Deviation(population=aggregate.population)),
        "min": (ordered or text, lambda: TextExtreme(kind, largest=False) if text else Extreme(kind, np.minimum)),
        "max": (ordered or text, lambda: TextExtreme(kind, largest=True) if text else Extreme(kind, np.maximum)),
        "quantile": (numeric, lambda: Quantile(aggregate.q)),
        "approx_distinct": (some and not pa.types.is_nested(kind), lambda: ApproxDistinct(kind, aggregate.precision)),
        "first": (some, lambda: (NumberEdge if ordered else ObjectEdge)(kind, last=False)),
        "last": (some, lambda: (NumberEdge if ordered else ObjectEdge)(kind, last=True)),
        "top_k": (ordered or text, lambda: Ranked(kind, aggregate.k)),
        "collect": (some, lambda: Collect(kind, aggregate.k)),
        "reduce": (some, lambda: _reduce(f"node {node!r}: {name}=agg.reduce(...)", aggregate.fold, kind)),
    }
    fits, make = makers[aggregate.kind]
    if not fits:
        raise TopologyError(
            f"node {node!r}: {name}=agg.{aggregate.kind}({aggregate.column}) over a column of type {kind}"
        )
    return make()


def check_mergeable(node: str, aggregates: Mapping[str, Aggregate]) -> None:
    """Raise TopologyError for an aggregate that cannot be merged, which session windows need."""
    for name, aggregate in aggregates.items():
        if not aggregate.mergeable:
            raise TopologyError(
                f"node {node!r}: {name}=agg.aggregate(...) needs merge= here: session windows that meet become one, "
                f"whose state merge(earlier, later) makes of both"
            )


def _reduce(where: str, fold: Fold | None, kind: pa.DataType) -> Accumulator:
    assert fold is not None
    _check_function(where, fold.function)
    return functions.Reduce(kind, fold.function)


def _fold(where: str, fold: Fold) -> Accumulator:
    _check_function(where, fold.function)
    if fold.merge is not None:
        _check_function(where, fold.merge)
    kind = _declared(where, fold.type) if fold.type is not None else _derived(where, fold.init)
    try:
        return functions.Fold(fold.init, fold.function, fold.merge, kind)
    except (TypeError, ValueError):
        raise TopologyError(f"{where}: init is no {kind}, or JSON cannot say it; correct it, or type=") from None


def _declared(where: str, kind: Any) -> pa.DataType:
    if isinstance(kind, pa.DataType):
        return kind
    try:
        return arrow_type(pl.Series([], dtype=kind))
    except (TypeError, pl.exceptions.PolarsError):
        raise TopologyError(f"{where}: type={kind!r} is neither an Arrow nor a Polars data type") from None


def _derived(where: str, init: Any) -> pa.DataType:
    try:
        kind = pa.array([init]).type
    except (ValueError, TypeError, OverflowError, NotImplementedError):  # Arrow's errors are among these
        kind = pa.null()
    if _unknown(kind):
        raise TopologyError(
            f"{where}: the type of the result cannot be told from init={init!r}; say it, as in type=pl.Int64"
        )
    return kind


def _unknown(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_unknown(field.type) for field in kind)
    if pa.types.is_list(kind):
        return _unknown(kind.value_type)
    return bool(pa.types.is_null(kind))


def _check_function(where: str, function: Any) -> None:
    if not callable(function) or inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TopologyError(f"{where}: needs a plain function of two parameters, not {function!r}")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        raise TopologyError(f"{where}: {_name(function)}() must take two parameters") from None
    except ValueError:
        return  # some functions written in C do not tell


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", function))
