"""Entries of joins and the like that memory has no room for: in the stores alone until their key is asked for, or due.

All that a key has, on both sides, is in memory, or nothing of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from streampipe.operators.cold import ColdDeadlines, ColdKeys
from streampipe.operators.joins.join_buffer import ALWAYS, KEY, Entries, Hashes, JoinBuffer, firsts
from streampipe.operators.joins.join_state import JoinStateCodec
from streampipe.operators.stream_time import NEVER
from streampipe.records import IntArray
from streampipe.state.port import StateStore

_Homes = dict[bytes, list[tuple[bytes, int]]]
"""By key, the state keys of its entries, and when each is over."""


class ColdEntries:
    """What is not in `sides`, by partition."""

    def __init__(self, codec: JoinStateCodec, sides: Sequence[JoinBuffer]) -> None:
        self._codec, self._sides = codec, sides
        self._stores: dict[int, StateStore] = {}
        self._keys: dict[int, ColdKeys] = {}
        self._due: dict[int, ColdDeadlines] = {}
        self.unmatched: Counter[tuple[int, int]] = Counter()
        """How many never met a partner, by side and partition."""

    def open(self, partition: int, store: StateStore) -> None:
        """Nothing of a partition is cold yet; what its store says of another process is forgotten."""
        self._stores[partition] = store
        self._keys[partition], self._due[partition] = ColdKeys(store), ColdDeadlines(store)
        self._keys[partition].clear()

    def close(self, partition: int) -> None:
        """Let a partition go."""
        for held in (self._stores, self._keys, self._due):
            held.pop(partition, None)
        for side in range(len(self._sides)):
            del self.unmatched[side, partition]

    def last_over(self, partition: int) -> int:
        """Stream time in ms by which all that was ever cold is over."""
        return self._due[partition].last_close if partition in self._due else NEVER

    def gather(self, keys: pa.Array, partitions: IntArray) -> None:
        """These keys are in use: bring back all that they have in the stores alone."""
        if not self._stores:
            return
        first = firsts(keys, partitions)
        keys, partitions = keys.take(pa.array(first)), partitions[first]
        away = np.ones(len(first), np.bool_)
        for side in self._sides:
            away &= ~side.use(keys, partitions)
        self._bring_back(zip(partitions[away].tolist(), keys.filter(pa.array(away)).to_pylist(), strict=True))

    def fall_due(self, stream_times: Iterable[tuple[int, int]]) -> None:
        """Bring back every key that has something which is over by now."""
        for partition, time in stream_times:
            if partition in self._due and time > self._due[partition].first:
                self._bring_back((partition, key) for key in self._due[partition].pop(time - 1))

    def _bring_back(self, homes: Iterable[tuple[int, bytes]]) -> None:
        of: dict[int, list[bytes]] = {}
        for partition, key in homes:
            of.setdefault(partition, []).append(key)
        for partition, keys in of.items():
            names = self._keys[partition].take(keys)
            values = self._stores[partition].get_many(names)
            held = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            for side, entries in self._decoded(partition, held):
                self.unmatched[side, partition] -= int((~entries.meta["matched"]).sum())
                self._sides[side].add(entries)

    def restore(self, partition: int, stored: Mapping[bytes, bytes]) -> int:
        """Put entries of a changelog into memory; the next number after all of theirs. Raises StateCorrupted."""
        following = 0
        for side, entries in self._decoded(partition, stored):
            self.gather(entries.rows.column(KEY), entries.meta["partition"])
            self._sides[side].add(entries)
            following = max(following, int(entries.meta["seq"].max()) + 1)
        return following

    def _decoded(self, partition: int, stored: Mapping[bytes, bytes]) -> Iterable[tuple[int, Entries]]:
        for side in range(len(self._sides)):
            if (entries := self._codec.decode(side, partition, stored)) is not None:
                yield side, entries

    def put_away(self, room: int | None) -> None:
        """Leave to the stores what memory has no room for: of what is written, the keys not used for longest."""
        if room is None:
            return
        for side in self._sides:
            side.round += 1
        if sum(map(len, self._sides)) > room and len(goes := self._coldest(room)):
            gone: dict[int, _Homes] = {}
            for number, side in enumerate(self._sides):
                for entries in side.take_out(goes):
                    self._note(number, entries, gone)
            for partition, homes in gone.items():
                self._put(partition, homes)

    def _coldest(self, room: int) -> Hashes:
        """Of keys with all their entries, so many that three quarters of the room are taken by the rest."""
        meta = np.concatenate([side.held() for side in self._sides])
        if len(meta) <= room:
            return np.zeros(0, np.uint64)
        keys, of, sizes = np.unique(meta["hash"], return_inverse=True, return_counts=True)
        used = np.zeros(len(keys), np.int64)
        np.maximum.at(used, of, np.where(meta["dirty"], ALWAYS, meta["used"]))
        order = np.argsort(used, kind="stable")
        order = order[used[order] < ALWAYS]
        left = len(meta) - np.cumsum(sizes[order])
        chosen: Hashes = np.sort(keys[order[: int((left > room - room // 4).sum()) + 1]])
        return chosen

    def _note(self, side: int, entries: Entries, gone: dict[int, _Homes]) -> None:
        partitions = entries.meta["partition"]
        for partition, count in zip(*np.unique(partitions[~entries.meta["matched"]], return_counts=True), strict=True):
            self.unmatched[side, int(partition)] += int(count)
        names, keys = self._codec.keys(side, entries), entries.rows.column(KEY).to_pylist()
        overs = (entries.meta["time"] + self._sides[side].reach_ms).tolist()
        for partition, key, name, over in zip(partitions.tolist(), keys, names, overs, strict=True):
            gone.setdefault(partition, {}).setdefault(key, []).append((name, over))

    def _put(self, partition: int, homes: _Homes) -> None:
        self._keys[partition].put({key: [name for name, _ in held] for key, held in homes.items()})
        first = np.array([min(over for _, over in held) for held in homes.values()], np.int64)
        last = np.array([max(over for _, over in held) for held in homes.values()], np.int64)
        self._due[partition].put(list(homes), first, last)
