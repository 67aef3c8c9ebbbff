"""Frames: any chain of filters, takes and selections is that of plain lists; what nobody reads is never touched."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from streampipe.operators.frame import Column, Frame, Origin
from streampipe.records import Record, batch_of


@given(st.integers(1, 8), st.data())
def test_any_chain_equals_the_same_on_lists(n: int, data: st.DataObject) -> None:
    origin = Origin.of(batch_of([Record("in", 0, i, i * 10, b"%d" % i, b"") for i in range(n)]))
    frame = Frame.of(pa.record_batch({"a": list(range(n)), "b": [f"{i}" for i in range(n)]}), origin)
    model = list(range(n))
    for _ in range(data.draw(st.integers(0, 4))):
        if data.draw(st.booleans()):
            mask = data.draw(st.lists(st.booleans(), min_size=len(model), max_size=len(model)))
            frame = frame.filter(np.array(mask, np.bool_))
            model = [m for m, keep in zip(model, mask, strict=True) if keep]
        elif model:
            at = data.draw(st.lists(st.integers(0, len(model) - 1), max_size=8))
            frame = frame.take(np.array(at, np.int64))
            model = [model[i] for i in at]
        frame = frame.with_columns(dict(reversed(frame.columns.items())))
    assert frame.columns["a"].arrow.to_pylist() == model
    assert frame.columns["b"].polars.to_list() == [f"{m}" for m in model]
    assert list(frame.keys()) == [b"%d" % m for m in model]
    assert frame.timestamps.tolist() == [m * 10 for m in model]
    assert len(frame) == len(model)


def test_a_column_that_nobody_reads_is_neither_filtered_nor_converted() -> None:
    class Untouchable(Column):
        @property
        def arrow(self) -> pa.Array:
            raise AssertionError("read")

    origin = Origin.of(batch_of([Record("in", 0, i, 0, None, b"") for i in range(2)]))
    frame = Frame({"a": Column(arrow=pa.array([1, 2])), "b": Untouchable()}, origin)
    assert frame.filter(np.array([True, False])).columns["a"].arrow.to_pylist() == [1]
