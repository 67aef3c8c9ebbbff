"""The index of slots against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe.operators.frame import Mask
from streampipe.operators.slot_index import Hashes, SlotIndex
from streampipe.records import IntArray

THINGS = st.sets(st.integers(0, 3_000), max_size=600)
DOINGS = st.lists(st.tuples(st.sampled_from(["add", "remove"]), THINGS), max_size=12)


@settings(max_examples=300, deadline=None)
@given(DOINGS, st.sampled_from([1, 7, 2**64 - 1]))
def test_the_index_knows_what_a_dictionary_knows_however_many_hashes_collide(
    doings: list[tuple[str, set[int]]], spread: int
) -> None:
    index, known, next_slot = SlotIndex(), dict[int, int](), 0
    names = np.zeros(4_000, np.int64)

    def hashes(things: IntArray) -> Hashes:
        return (things.astype(np.uint64) % np.uint64(spread)) * np.uint64(1 << 61 | 5)

    def slots_of(things: IntArray) -> IntArray:
        def same(rows: IntArray, slots: IntArray) -> Mask:
            equal: Mask = things[rows] == names[slots]
            return equal

        return index.find(hashes(things), same)

    for what, wanted in doings:
        if what == "add":
            things = np.array(sorted(wanted - known.keys()), np.int64)
            slots = np.arange(next_slot, next_slot + len(things)) % 4_000
            if set(slots.tolist()) & set(known.values()):
                continue
            next_slot += len(things)
            names[slots] = things
            index.add(hashes(things), slots)
            known |= dict(zip(things.tolist(), slots.tolist(), strict=True))
        else:
            things = np.array(sorted(wanted & known.keys()), np.int64)
            index.remove(slots_of(things))
            known = {thing: slot for thing, slot in known.items() if thing not in wanted}
        everything = np.arange(3_001)
        assert slots_of(everything).tolist() == [known.get(thing, -1) for thing in range(3_001)]


def test_slots_that_come_and_go_for_long_take_no_more_room() -> None:
    index = SlotIndex()
    for turn in range(300):
        hashes = np.random.default_rng(turn).integers(0, 2**64, 500, np.uint64)
        index.add(hashes, np.arange(500))
        index.remove(np.arange(500))
    assert len(index._table) <= 8 * 1024
