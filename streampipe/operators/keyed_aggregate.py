"""What every aggregate by key is made of: its key, its slots, its results, and the changelog they come back from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from streampipe.operators.stateful import StoredStep
from streampipe.operators.window_state import WindowStateCodec
from streampipe.records import IntArray
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
        self._key, self._stores, self.changelog = node.key, stores, node.changelog
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
        keys = self._slots.keys
        return [keys[slot] for slot in at.tolist()]

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
        gone, self._gone = self._gone, []
        keys, values = self._codec.encode(slots, dirty) if len(dirty) else ([], [])
        partitions = [*(p for p, _ in gone), *slots.partition[dirty].tolist(), *(p for p, _, _ in more)]
        keys = [*(k for _, k in gone), *keys, *(k for _, k, _ in more)]
        slots.dirty[dirty], slots.stored[dirty] = False, True
        self._log(partitions, keys, [*(None for _ in gone), *values, *(v for *_, v in more)])

    def _restored_slots(self, partition: int) -> tuple[IntArray, Mapping[bytes, bytes]]:
        """Put what the store holds into slots, and say which; and the entries that are no slots."""
        entries = list(self._open[partition].range())
        meta = {k: v for k, v in entries if k in self._meta}
        held = [(k, v) for k, v in entries if k not in self._meta]
        if not held:
            return np.zeros(0, np.int64), meta
        return self._codec.decode(self._slots, partition, [k for k, _ in held], [v for _, v in held]), meta

    def restored(self, partition: int) -> None:
        """The aggregates come back. Raises StateCorrupted."""
        self._restored_slots(partition)

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
