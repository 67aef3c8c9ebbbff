"""Windows of which a key has many, found by that key: sessions, and the records of sliding windows.

With a store beside memory, all that a key has is in memory, or nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from streampipe.operators.cold import ColdKeys
from streampipe.operators.keyed_aggregate import Home
from streampipe.operators.windows.windowed import WindowedStep
from streampipe.records import IntArray


class GatheredStep(WindowedStep):
    """Aggregates by key and window, with an index of what each key has in memory."""

    _spills = True
    _index: dict[Home, Any]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._index = {}
        self._away: dict[int, ColdKeys] = {}

    def _held(self, home: Home) -> list[int]:
        """The slots of a key that is in memory."""
        raise NotImplementedError

    def _gather(self, homes: Iterable[Home]) -> None:
        """These keys are in use: bring back all that they have in the stores alone."""
        if self._in_memory:
            return
        used, away = list[int](), dict[int, list[bytes]]()
        for home in homes:
            if home in self._index:
                used += self._held(home)
            else:
                away.setdefault(home[0], []).append(home[1])
        self._slots.use(np.array(used, np.int64))
        for partition, some in away.items():
            if names := self._away[partition].take(some):
                self._bring_back(partition, names)

    def _came_back(self, partition: int, at: IntArray) -> None:
        self._gather(set(self._homes(at)))  # a restore may have put others of these keys away before
        super()._came_back(partition, at)

    def _may_go_cold(self, at: IntArray) -> IntArray:
        going, staying = set(at.tolist()), list[int]()
        for home in set(self._homes(at)):
            if not going.issuperset(held := self._held(home)):
                staying += held
        return np.setdiff1d(at, staying)

    def _goes_cold(self, at: IntArray) -> None:
        super()._goes_cold(at)
        homes, names = self._homes(at), self._codec.keys(self._slots, at)
        gone: dict[int, dict[bytes, list[bytes]]] = {}
        for (partition, key), name in zip(homes, names, strict=True):
            gone.setdefault(partition, {}).setdefault(key, []).append(name)
        for partition, of_key in gone.items():
            self._away[partition].put(of_key)
        for home in set(homes):
            del self._index[home]

    def open(self, partition: int) -> None:
        """Take a partition on, its state empty."""
        super().open(partition)
        self._away[partition] = ColdKeys(self._open[partition])

    def restored(self, partition: int) -> None:
        """What there is comes back, as far as there is room. Raises StateCorrupted."""
        if not self._in_memory:
            self._away[partition].clear()  # those of the process that kept the store
        super().restored(partition)

    def close(self, partition: int) -> None:
        """Let a partition go, with all that is not flushed."""
        super().close(partition)
        self._index = {home: held for home, held in self._index.items() if home[0] != partition}
        self._away.pop(partition, None)
