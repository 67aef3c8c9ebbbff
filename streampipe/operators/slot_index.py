"""Which slot stands for what, for many at a time: a hash table made of arrays.

Open addressing with linear probing. A dictionary would take three times as long for each group that it has not seen:
a name made of its parts, hashed, looked up, put in, and made again when the slot is free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from streampipe.operators.frame import Mask
from streampipe.records import IntArray

Hashes: TypeAlias = npt.NDArray[np.uint64]
_EMPTY, _GONE = -1, -2
_SMALLEST = 1024


class SlotIndex:
    """Slots by the hash of what they stand for. Equal hashes of different things are nothing out of the ordinary."""

    def __init__(self) -> None:
        self._table = np.full(_SMALLEST, _EMPTY, np.int64)
        self._filled = 0
        """Cells of the table that are not empty."""
        self._hashes: Hashes = np.zeros(0, np.uint64)
        self._cells = np.zeros(0, np.int64)
        """Where in the table each slot is."""

    def find(self, hashes: Hashes, same: Callable[[IntArray, IntArray], Mask]) -> IntArray:
        """The slot of each, -1 where there is none. `same` says of rows of `hashes` and slots whether they are one."""
        found = np.full(len(hashes), -1, np.int64)
        rows, cells = np.arange(len(hashes)), self._first_cells(hashes)
        while len(rows):
            slots = self._table[cells]
            like = np.flatnonzero(slots >= 0)
            like = like[self._hashes[slots[like]] == hashes[rows[like]]]
            right = like[same(rows[like], slots[like])] if len(like) else like
            found[rows[right]] = slots[right]
            on = slots != _EMPTY
            on[right] = False
            rows, cells = rows[on], self._next(cells[on])
        return found

    def add(self, hashes: Hashes, slots: IntArray) -> None:
        """Slots that are not there yet."""
        if self._filled + len(slots) > len(self._table) // 2:
            self._rebuild(len(slots))
        if (size := int(slots.max(initial=-1)) + 1) > len(self._hashes):
            more = max(size, 2 * len(self._hashes)) - len(self._hashes)
            self._hashes = np.concatenate([self._hashes, np.zeros(more, np.uint64)])
            self._cells = np.concatenate([self._cells, np.zeros(more, np.int64)])
        self._hashes[slots] = hashes
        self._put(hashes, slots)

    def remove(self, slots: IntArray) -> None:
        """Slots that are there."""
        self._table[self._cells[slots]] = _GONE

    def _put(self, hashes: Hashes, slots: IntArray) -> None:
        self._filled += len(slots)
        cells = self._first_cells(hashes)
        while len(slots):
            free = self._table[cells] == _EMPTY
            self._table[cells[free]] = slots[free]  # of several that want a cell one has it in the end
            there = self._table[cells] == slots
            self._cells[slots[there]] = cells[there]
            slots, cells = slots[~there], self._next(cells[~there])

    def _rebuild(self, more: int) -> None:
        """Make room, and get rid of the cells of slots that are gone."""
        live = self._table[self._table >= 0]
        size = 1 << (4 * (len(live) + more) - 1).bit_length()
        self._table, self._filled = np.full(max(size, _SMALLEST), _EMPTY, np.int64), 0
        self._put(self._hashes[live], live)

    def _first_cells(self, hashes: Hashes) -> IntArray:
        return (hashes & np.uint64(len(self._table) - 1)).astype(np.int64)

    def _next(self, cells: IntArray) -> IntArray:
        after: IntArray = (cells + 1) & (len(self._table) - 1)
        return after
