"""What every aggregate by key is made of: its key, its slots, its results, and the changelog they come back from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa

from streampipe.aggregates import Aggregate
from streampipe.errors import TopologyError
from streampipe.operators.aggregation import Aggregation
from streampipe.operators.edges import refuse
from streampipe.operators.effects import Effects
from streampipe.operators.frame import Column, Frame, Mask, Origin
from streampipe.operators.grouping import (
    Groups,
    check_key_columns,
    check_state_key,
    columns_of_keys,
    key_bytes,
    null_rows,
    state_keys,
)  # fmt: skip
from streampipe.operators.slots import Slots, Table
from streampipe.operators.stateful import AT_ONCE, StoredStep
from streampipe.operators.window_state import WindowStateCodec
from streampipe.records import IntArray
from streampipe.state.codec import window_keys
from streampipe.state.kept import Mark
from streampipe.state.port import StateStore, Stores
from streampipe.topology.nodes import RunningAggregate, WindowedAggregate

Home = tuple[int, bytes]
"""Partition and key as JSON."""
Change = tuple[int, bytes, bytes | None]
"""Partition, key and value of a changelog record; no value deletes."""


class KeyedAggregateStep(StoredStep):
    """Aggregates by key, in slots. What a slot stands for, and when it speaks, is for those derived to say."""

    _codec_type: type[WindowStateCodec] = WindowStateCodec
    _table_type: type[Table] = Slots
    _meta: frozenset[bytes] = frozenset()
    """State keys that are no slots."""
    _spills: ClassVar[bool] = False
    """Whether slots that are not in use may lie in the store alone, where that is not memory as well."""

    _lazy: ClassVar[bool] = False
    """Whether nobody need know of a slot in the store before it is asked for."""

    def __init__(
        self,
        node: RunningAggregate | WindowedAggregate,
        effects: Effects,
        schema: pa.Schema,
        stores: Stores,
        *,
        shape: str,
        more: Sequence[pa.Field] = (),
    ) -> None:
        """`shape` says what the state depends on besides key and aggregates; `more` columns follow the key.

        Raises TopologyError for a key, an expression or an aggregate that makes no sense.
        """
        super().__init__(node.name, effects)
        assert node.key is not None
        self._key, self.changelog = node.key, node.changelog
        self._stores, self._in_memory = stores, stores.room is None or not self._spills
        check_key_columns(node.name, self._key, schema)
        self._key_types = [schema.field(c).type for c in self._key]
        check_state_key(node.name, self._key, self._key_types)
        _check_names(node.name, node.aggregates, [*self._key, *(f.name for f in more)])
        self._aggregation = Aggregation(node.name, effects, node.aggregates, schema)
        accumulators = self._aggregation.accumulators
        self._slots = self._table_type(list(accumulators.values()))
        key = dict(zip(self._key, self._key_types, strict=True))
        self._codec = self._codec_type(node.name, accumulators, key, shape)
        self._open: dict[int, StateStore] = {}
        self._gone: list[tuple[int, bytes]] = []
        self.schema = pa.schema([
            *(schema.field(c).with_nullable(False) for c in self._key), *more, *self._aggregation.fields,
        ])  # fmt: skip

    # --- records ------------------------------------------------------------------------------------------------

    def _refuse(self, frame: Frame, bad: Mask, rule: str) -> Frame:
        """The rows that are not bad; the others are dead letters."""
        return refuse(self.effects, frame, bad, self.name, rule)

    def _with_key(self, frame: Frame) -> Frame:
        return self._refuse(frame, null_rows([frame.columns[c] for c in self._key]), "key")

    def _key_columns(self, frame: Frame) -> list[Column]:
        return [frame.columns[c] for c in self._key]

    def _group_keys(self, frame: Frame, groups: Groups) -> list[bytes]:
        """The key of each group."""
        return state_keys(self._key_columns(frame), groups)

    def _result(
        self,
        keys: Sequence[bytes],
        partitions: IntArray,
        more: Sequence[pa.Array],
        aggregates: Sequence[pa.Array],
        times: IntArray,
    ) -> None:
        """Emit a row for each of these keys and partitions, with these columns behind the key and these event times."""
        key_columns = columns_of_keys(keys, self._key_types)
        arrays = zip(self.schema.names, [*key_columns, *more, *aggregates], strict=True)
        columns = {name: Column(arrow=array) for name, array in arrays}
        record_keys = key_bytes({c: columns[c] for c in self._key})
        self.emit(Frame(columns, Origin(self.name, record_keys, times, partitions)))

    def _keys(self, at: IntArray) -> list[bytes]:
        """The keys of these slots."""
        keys: list[bytes] = self._slots.keys[at].tolist()
        return keys

    def _homes(self, at: IntArray) -> list[Home]:
        """Partition and key of these slots."""
        return list(zip(self._slots.partition[at].tolist(), self._keys(at), strict=True))

    # --- state --------------------------------------------------------------------------------------------------

    def _forget(self, at: IntArray) -> None:
        """These slots are over: no state of theirs is left after the next flush."""
        stored = at[self._slots.stored[at]]
        if len(stored):
            self._gone += zip(self._slots.partition[stored].tolist(), self._stored_keys(stored), strict=True)
        self._slots.free(at)

    def _stored_keys(self, at: IntArray) -> list[bytes]:
        """Under which keys these slots are stored."""
        return self._codec.keys(self._slots, at)

    def _write(self, more: Sequence[Change] = ()) -> None:
        """Bring stores and changelog up to date: what is gone, what changed, and `more`."""
        slots, dirty = self._slots, np.flatnonzero(self._slots.dirty)
        keys, values = self._codec.encode(slots, dirty) if len(dirty) else ([], [])
        gone, self._gone = self._gone, []
        if gone:  # a session may take the place of another one
            written = set(zip(slots.partition[dirty].tolist(), keys, strict=True))
            gone = [place for place in gone if place not in written]
        partitions = [*(p for p, _ in gone), *slots.partition[dirty].tolist(), *(p for p, _, _ in more)]
        keys = [*(k for _, k in gone), *keys, *(k for _, k, _ in more)]
        slots.dirty[dirty], slots.stored[dirty] = False, True
        self._log(partitions, keys, [*(None for _ in gone), *values, *(v for *_, v in more)])

    def _store(self, partitions: list[int], keys: list[bytes], values: list[bytes | None]) -> None:
        if not self._in_memory:  # else slots are all there is
            super()._store(partitions, keys, values)

    def _find(self, partitions: IntArray, starts: IntArray, keys: Sequence[bytes]) -> IntArray:
        """Slots of these distinct groups, brought back from the store if they were put there; new ones empty."""
        assert isinstance(self._slots, Slots)
        if not self._in_memory:
            away = self._slots.missing(partitions, starts, keys)
            names = window_keys([keys[i] for i in away.tolist()], starts[away]) if len(away) else []
            for partition in np.unique(partitions[away]).tolist():
                mine = np.flatnonzero(partitions[away] == partition).tolist()
                self._bring_back(partition, [names[i] for i in mine])
        return self._slots.find(partitions, starts, keys)

    def _bring_back(self, partition: int, names: Sequence[bytes]) -> None:
        """Put into slots what the store holds under these state keys."""
        values = self._open[partition].get_many(names)
        held = [(name, value) for name, value in zip(names, values, strict=True) if value is not None]
        if held:
            at = self._codec.decode(self._slots, partition, [name for name, _ in held], [value for _, value in held])
            self._came_back(partition, at)

    def _came_back(self, partition: int, at: IntArray) -> None:
        """These slots have come from the store."""

    def _put_away(self) -> None:
        """Leave to the stores what memory has no room for. Nothing of it may be unwritten."""
        if (room := self._stores.room) is not None and not self._in_memory:
            cold = self._may_go_cold(self._slots.coldest(room))
            if len(cold):
                self._goes_cold(cold)
                self._slots.free(cold)

    def _may_go_cold(self, at: IntArray) -> IntArray:
        """Those of these slots that can be in the stores alone."""
        return at

    def _goes_cold(self, at: IntArray) -> None:
        """These slots are about to be in the stores alone."""

    def restored(self, partition: int) -> None:
        """The aggregates come back, as far as there is room. Raises StateCorrupted."""
        store = self._open[partition]
        if meta := {key: value for key in self._meta if (value := store.get(key)) is not None}:
            self._meta_came_back(partition, meta)
        for keys, values in store.scan(AT_ONCE):
            if self._meta:
                slots = [i for i, key in enumerate(keys) if key[:1] == b"["]
                keys, values = [keys[i] for i in slots], [values[i] for i in slots]
            if keys:
                self._came_back(partition, self._codec.decode(self._slots, partition, keys, values))
            if self._spills:
                self._put_away()
            if self._lazy and not self._in_memory:
                break  # these were of the right shape; the rest is read when it is asked for
        if self._in_memory:
            store.clear()

    def _meta_came_back(self, partition: int, meta: Mapping[bytes, bytes]) -> None:
        """The entries that are no slots; they come first."""

    def keep(self, partition: int, mark: Mark) -> None:
        """Keep the store; what is in memory alone goes there first."""
        if self._in_memory:
            at = self._slots.of(partition)
            keys, values = self._codec.encode(self._slots, at) if len(at) else ([], [])
            meta = self._meta_of(partition)
            self._open[partition].put_many([*keys, *(k for _, k, _ in meta)], [*values, *(v for *_, v in meta)])
        super().keep(partition, mark)

    def _meta_of(self, partition: int) -> Sequence[Change]:  # noqa: ARG002 - for those that have some
        """What is stored of a partition besides slots."""
        return []

    def close(self, partition: int) -> None:
        """Let a partition go, with all that is not flushed."""
        if partition in self._open:
            self._slots.free(self._slots.of(partition))
            self._gone = [(p, k) for p, k in self._gone if p != partition]
        super().close(partition)


def _check_names(node: str, aggregates: Mapping[str, Aggregate], taken: Sequence[str]) -> None:
    for name in aggregates:
        if name in taken:
            raise TopologyError(f"node {node!r}: an aggregate cannot be named {name!r}, as a column of the result is")
