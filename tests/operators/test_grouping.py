"""Grouping equals a Python dictionary's, whatever the columns hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.errors import StateCorrupted, TopologyError
from streampipe.operators import grouping
from streampipe.operators.frame import Column
from streampipe.operators.grouping import (
    Groups,
    as_physical,
    check_key_columns,
    columns_of_keys,
    group,
    key_bytes,
    null_rows,
    state_keys,
)

BIG = 2**62
words, wholes = st.none() | st.text(max_size=2), st.none() | st.integers(-(2**63), 2**63 - 1)
starts = st.sampled_from([0, 1, -1, BIG, -BIG, BIG - 1, -BIG + 1]) | st.integers(-BIG, BIG)


@given(st.lists(st.tuples(words, wholes, st.none() | st.booleans(), starts, st.integers(0, 3)), max_size=30), st.data())
def test_groups_are_those_of_a_dictionary(rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    mask = pa.array(kept, pa.bool_())
    types = [pa.string(), pa.int64(), pa.bool_()]
    columns = [Column(arrow=pa.array([r[i] for r in rows], t)).filter(mask) for i, t in enumerate(types)]
    rows = [r for r, keep in zip(rows, kept, strict=True) if keep]
    numbers = [np.array([r[i] for r in rows], np.int64) for i in (3, 4)]
    groups = group(columns, *numbers)
    first: dict[tuple[Any, ...], int] = {}
    for i, r in enumerate(rows):
        first.setdefault(r, i)
    assert sorted(groups.first.tolist()) == sorted(first.values())
    assert [int(groups.first[g]) for g in groups.of] == [first[r] for r in rows]


def test_a_categorical_column_groups_by_its_text() -> None:
    column = Column(polars=pl.Series(["a", None, "a"], dtype=pl.Categorical))
    assert group([column]).of.tolist() == group([Column(arrow=pa.array(["a", None, "a"]))]).of.tolist()


@pytest.mark.parametrize("kind", [pa.timestamp("ms", "UTC"), pa.timestamp("us"), pa.timestamp("ns"), pa.date32()])
def test_a_time_that_has_no_text_counts_as_null(kind: pa.DataType) -> None:
    bits = pa.int32() if kind == pa.date32() else pa.int64()
    largest = 2 ** (bits.bit_width - 1) - 1
    column = Column(arrow=pa.array([0, largest, -largest], bits).view(kind))
    keys = key_bytes({"t": column})
    assert keys[0] is not None
    assert [key is None for key in keys] == null_rows([column]).tolist()


@pytest.mark.parametrize("kind", [pa.struct([("a", pa.int32())]), pa.list_(pa.int32()), pa.decimal256(50, 2)])
def test_a_key_that_has_no_text_is_refused(kind: pa.DataType) -> None:
    with pytest.raises(TopologyError, match="cannot be part of a key"):
        check_key_columns("n", ["c"], pa.schema([("c", kind)]))


_PARTS = {
    pa.string(): st.text(max_size=4),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.bool_(): st.booleans(),
    pa.timestamp("ms", tz="UTC"): st.integers(-(2**40), 2**40),
}


@pytest.mark.parametrize("few", [0, 200], ids=["in columns", "one by one"])
@given(data=st.data(), kinds=st.lists(st.sampled_from(list(_PARTS)), min_size=1, max_size=3))
def test_state_keys_are_compact_json_and_come_back_as_they_went(
    few: int, data: st.DataObject, kinds: list[pa.DataType]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(grouping, "_FEW", few)
        _there_and_back(data, kinds)


def _there_and_back(data: st.DataObject, kinds: list[pa.DataType]) -> None:
    rows = data.draw(st.lists(st.tuples(*(_PARTS[kind] for kind in kinds)), min_size=1, max_size=5, unique=True))
    arrays = [pa.array(values, as_physical(pa.array([], kind)).type).cast(kind)
              for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)]  # fmt: skip
    each = np.arange(len(rows))
    keys = state_keys([Column(arrow=array) for array in arrays], Groups(each, each))
    assert keys == [orjson.dumps(row) for row in rows]
    assert columns_of_keys(keys, kinds) == arrays


@pytest.mark.parametrize("key", [b"[1", b"1", b"", b'["a]', b"[x]"])
def test_a_state_key_that_is_no_json_array_is_refused(key: bytes) -> None:
    with pytest.raises(StateCorrupted, match="a state key"):
        columns_of_keys([key], [pa.int64()])
