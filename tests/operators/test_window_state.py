"""State as bytes: what went in comes out, and nothing else is taken for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe import agg
from streampipe.errors import StateCorrupted
from streampipe.operators.accumulators import Accumulator, accumulator
from streampipe.operators.frame import Column
from streampipe.operators.slots import Slots
from streampipe.operators.window_state import WindowStateCodec

NODES = {
    "n": agg.count(),
    "s": agg.sum("x"),
    "q": agg.quantile("x", 0.5),
    "m": agg.max("x"),
    "p": agg.quantile("x", 1),
    "c": agg.collect("x", limit=3),
}
KEY = {"k": pa.string(), "i": pa.int64()}


def made(nodes: dict[str, Any] = NODES, key: dict[str, pa.DataType] = KEY) -> tuple[Slots, WindowStateCodec]:
    every: dict[str, Accumulator] = {n: accumulator("w", n, a, pa.int64()) for n, a in nodes.items()}
    return Slots(list(every.values())), WindowStateCodec("w", every, key, "tumbling 5")


groups = st.dictionaries(
    st.tuples(st.integers(-(2**62), 2**62), st.tuples(st.text(max_size=3), st.integers(-(2**63), 2**63 - 1))),
    st.lists(st.integers(-(2**31), 2**31), min_size=1, max_size=4), min_size=1, max_size=6,
)  # fmt: skip


def fill(slots: Slots, held: dict[Any, list[int]]) -> np.ndarray:
    at = slots.find(np.zeros(len(held), np.int64), np.array([g[0] for g in held]), [orjson.dumps(g[1]) for g in held])
    for slot, values in zip(at.tolist(), held.values(), strict=True):
        of = np.full(len(values), slot)
        slots.touch(of, np.array(values))
        for one in slots.accumulators:
            one.update(of, Column(arrow=pa.array(values, pa.int64())), np.array(values))
    return at


@given(groups)
def test_state_comes_back_as_it_went(held: dict[Any, list[int]]) -> None:
    slots, codec = made()
    at = fill(slots, held)
    keys, values = codec.encode(slots, at)
    assert len(set(keys)) == len(held)
    again, codec = made()
    codec.decode(again, 0, keys, values)
    back = again.find(np.zeros(len(held), np.int64), slots.start[at], [slots.keys[s] for s in at.tolist()])
    assert len(again) == len(held)
    assert again.timestamp[back].tolist() == slots.timestamp[at].tolist()
    assert again.stored[back].all()
    for before, after in zip(slots.accumulators, again.accumulators, strict=True):
        assert before.result(at).equals(after.result(back))


@given(st.data())
def test_truncated_and_flipped_bytes_are_refused(data: st.DataObject) -> None:
    slots, codec = made()
    keys, [value] = codec.encode(slots, fill(slots, {(0, ("a", 1)): [1, 2]}))
    cut = data.draw(st.integers(0, len(value) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = value[:cut] + bytes([value[cut] ^ 1 << bit]) + value[cut + 1 :]
    for bad in (value[:cut], flipped):
        with pytest.raises(StateCorrupted):
            codec.decode(made()[0], 0, keys, [bad])
        with pytest.raises(StateCorrupted):
            codec.decode_time(bad)


@pytest.mark.parametrize(
    ("nodes", "key"),
    [
        (NODES | {"m": agg.min("x")}, KEY),
        (NODES | {"q": agg.quantile("x", 0.4)}, KEY),
        (NODES | {"c": agg.collect("x", limit=4)}, KEY),
        ({n: NODES[n] for n in ("s", "n", "q", "m", "p", "c")}, KEY),
        (NODES, {"other": pa.string(), "i": pa.int64()}),
        (NODES, {"k": pa.string(), "i": pa.int32()}),
    ],
    ids=["max became min", "another quantile", "another limit", "reordered", "another key", "another type"],
)
def test_state_of_other_aggregates_or_another_key_is_refused(nodes: Any, key: Any) -> None:
    slots, codec = made()
    keys, values = codec.encode(slots, fill(slots, {(0, ("a", 1)): [1]}))
    others, other = made(nodes, key)
    with pytest.raises(StateCorrupted, match="another shape"):
        other.decode(others, 0, keys, values)
