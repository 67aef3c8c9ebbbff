"""The accumulator that an aggregate needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from streampipe.aggregates import Aggregate
from streampipe.errors import TopologyError
from streampipe.operators.accumulators.base import Accumulator
from streampipe.operators.accumulators.extremes import Extreme
from streampipe.operators.accumulators.lists import Collect
from streampipe.operators.accumulators.moments import Count, Mean, Sum
from streampipe.operators.accumulators.quantile import Quantile


def accumulator(node: str, name: str, aggregate: Aggregate, kind: pa.DataType | None) -> Accumulator:
    """The accumulator of an aggregate over a column of this type. Raises TopologyError when it makes no sense."""
    if aggregate.kind == "count":
        return Count()
    assert kind is not None
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    temporal = pa.types.is_temporal(kind)
    makers: dict[str, tuple[bool, Callable[[], Accumulator]]] = {
        "sum": (numeric or pa.types.is_boolean(kind), lambda: Sum(kind)),
        "mean": (numeric or pa.types.is_boolean(kind), Mean),
        "min": (numeric or temporal, lambda: Extreme(kind, np.minimum)),
        "max": (numeric or temporal, lambda: Extreme(kind, np.maximum)),
        "quantile": (numeric, lambda: Quantile(aggregate.q)),
        "collect": (not pa.types.is_null(kind), lambda: Collect(kind, aggregate.limit)),
    }
    fits, make = makers[aggregate.kind]
    if not fits:
        raise TopologyError(
            f"node {node!r}: {name}=agg.{aggregate.kind}({aggregate.column}) over a column of type {kind}"
        )
    return make()
