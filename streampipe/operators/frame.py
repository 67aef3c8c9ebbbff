"""Columns in flight: lazy, in Arrow or Polars as needed, each row knowing the record it came from.

Converting or filtering a column costs, and most columns of a wide record are never looked at. So a filter only notes
its mask; a column is filtered when somebody reads it, and converted between Arrow and Polars once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
import pyarrow as pa

from streampipe.records import Headers, IntArray, Record, RecordBatch

Mask = npt.NDArray[np.bool_]


class Column:
    """One column, in whatever form it was made, giving the other form on demand."""

    __slots__ = ("_arrow", "_mask", "_parent", "_polars")

    def __init__(
        self,
        arrow: pa.Array | None = None,
        polars: pl.Series | None = None,
        parent: Column | None = None,
        mask: pa.Array | None = None,
    ) -> None:
        self._arrow, self._polars, self._parent, self._mask = arrow, polars, parent, mask

    @property
    def arrow(self) -> pa.Array:
        """As an Arrow array."""
        if self._arrow is None:
            if self._polars is not None:
                self._arrow = self._polars.to_arrow()
            else:
                assert self._parent is not None
                self._arrow = self._parent.arrow.filter(self._mask)
                self._parent = self._mask = None
        return self._arrow

    @property
    def polars(self) -> pl.Series:
        """As a Polars series."""
        if self._polars is None:
            self._polars = pl.Series(values=pl.from_arrow(self.arrow))
        return self._polars

    def filter(self, mask: pa.Array) -> Column:
        """The rows for which the Boolean array `mask` is true, computed when first read."""
        return Column(parent=self, mask=mask)

    def take(self, rows: IntArray) -> Column:
        """The rows at these positions."""
        return Column(arrow=self.arrow.take(pa.array(rows)))


class Origin:
    """The records that rows came from: consumed ones, or results that an operator made.

    `keys`, `timestamps` (ms) and `partitions` have an entry for each record. `fates` is the fate of each record so
    far, an index into OUTCOMES; those of made records are in no account, since nobody consumed them.
    """

    __slots__ = ("batch", "fates", "keys", "partitions", "timestamps", "topic")

    def __init__(
        self, topic: str, keys: Sequence[bytes | None], timestamps: IntArray, partitions: IntArray,
        batch: RecordBatch | None = None,
    ) -> None:  # fmt: skip
        self.topic, self.keys, self.timestamps, self.partitions, self.batch = topic, keys, timestamps, partitions, batch
        self.fates = np.zeros(len(keys), np.int64)

    @classmethod
    def of(cls, batch: RecordBatch) -> Origin:
        """Of consumed records."""
        return cls(batch.topic, batch.keys, batch.timestamps, batch.partitions, batch)

    def mark(self, rows: IntArray | None, fate: int) -> None:
        """These records (None: all) have at least this fate."""
        if rows is None:
            np.maximum(self.fates, fate, out=self.fates)
        else:
            self.fates[rows] = np.maximum(self.fates[rows], fate)

    def record(self, row: int, columns: dict[str, Column], position: int) -> tuple[Record, bool]:
        """The original record of a row, and whether its headers could not be read.

        A made record has no bytes yet: its value is the row (at `position` of `columns`) as JSON.
        """
        if self.batch is None:
            event = {name: _plain(column.arrow, position) for name, column in columns.items()}
            value = orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
            return Record(
                self.topic, int(self.partitions[row]), -1, int(self.timestamps[row]), self.keys[row], value
            ), False
        headers: Headers = ()
        bad = False
        try:
            headers = self.batch.headers(row)
        except ValueError:
            bad = True
        return (
            Record(
                self.topic, int(self.partitions[row]), int(self.batch.offsets[row]), int(self.batch.timestamps[row]),
                self.keys[row], self.batch.values[row], headers,
            ),
            bad,
        )  # fmt: skip


class Extended(Origin):
    """Records of another origin with results made besides them, in one order.

    `sources[i]` is the record of `base` that entry i stands for, negative where it is a made one.
    """

    __slots__ = ("_base", "_made_fates", "_sources")

    def __init__(
        self, base: Origin, sources: IntArray, topic: str, keys: Sequence[bytes | None], timestamps: IntArray,
        partitions: IntArray,
    ) -> None:  # fmt: skip
        self._base, self._sources = base, sources
        super().__init__(topic, keys, timestamps, partitions)

    @property
    def fates(self) -> IntArray:
        """Fate of each entry."""
        return np.where(self._sources < 0, self._made_fates, self._base.fates[self._sources])

    @fates.setter
    def fates(self, fates: IntArray) -> None:
        self._made_fates = fates

    def mark(self, rows: IntArray | None, fate: int) -> None:
        """These entries (None: all) have at least this fate."""
        of = np.arange(len(self._sources)) if rows is None else rows
        made = self._sources[of] < 0
        self._made_fates[of[made]] = np.maximum(self._made_fates[of[made]], fate)
        self._base.mark(self._sources[of[~made]], fate)

    def record(self, row: int, columns: dict[str, Column], position: int) -> tuple[Record, bool]:
        """As for any origin."""
        source = int(self._sources[row])
        return super().record(row, columns, position) if source < 0 else self._base.record(source, columns, position)


def _plain(array: pa.Array, position: int) -> Any:
    try:
        return array[position].as_py()
    except (OverflowError, ValueError):
        return f"a {array.type} beyond Python's calendar"


@dataclass
class Frame:
    """Rows in flight. `rows[i]` is the record of `origin` that row i came from; None: all of them, in order."""

    columns: dict[str, Column]
    origin: Origin
    rows: IntArray | None = None

    @classmethod
    def of(cls, columns: pa.RecordBatch, origin: Origin, rows: IntArray | None = None) -> Frame:
        """A frame of Arrow columns."""
        named = zip(columns.schema.names, columns.columns, strict=True)
        return cls({name: Column(arrow=array) for name, array in named}, origin, rows)

    def __len__(self) -> int:
        return len(self.origin.keys) if self.rows is None else len(self.rows)

    @cached_property
    def timestamps(self) -> IntArray:
        """Event time of each row in ms."""
        return self.origin.timestamps if self.rows is None else self.origin.timestamps[self.rows]

    @cached_property
    def partitions(self) -> IntArray:
        """Partition of each row, the one its task and state belong to."""
        return self.origin.partitions if self.rows is None else self.origin.partitions[self.rows]

    @property
    def indexes(self) -> IntArray:
        """Index into the origin of each row."""
        return np.arange(len(self), dtype=np.int64) if self.rows is None else self.rows

    def keys(self) -> Sequence[bytes | None]:
        """Record key of each row."""
        if self.rows is None:
            return self.origin.keys
        if len(self.rows) * 2 > len(self.origin.keys) and bool((np.diff(self.rows) > 0).all()):
            kept = np.zeros(len(self.origin.keys), np.bool_)
            kept[self.rows] = True
            return list(compress(self.origin.keys, kept.tolist()))
        keys = self.origin.keys
        return [keys[i] for i in self.rows.tolist()]

    def with_columns(self, columns: dict[str, Column]) -> Frame:
        """The same rows with exactly these columns."""
        return Frame(columns, self.origin, self.rows)

    def filter(self, mask: Mask) -> Frame:
        """The rows for which `mask` is true; this very frame when all are."""
        if bool(mask.all()):
            return self
        kept = pa.array(mask)
        return Frame({n: c.filter(kept) for n, c in self.columns.items()}, self.origin, self.indexes[mask])

    def take(self, positions: IntArray) -> Frame:
        """The rows at these positions; one may come several times."""
        return Frame({n: c.take(positions) for n, c in self.columns.items()}, self.origin, self.indexes[positions])

    def polars(self, names: Iterable[str]) -> pl.DataFrame:
        """These columns for Polars, at least one so that the height is known."""
        wanted = list(dict.fromkeys(names)) or list(self.columns)[:1]
        return pl.DataFrame([self.columns[n].polars.alias(n) for n in wanted])

    def arrow(self, names: Iterable[str] | None = None) -> pa.RecordBatch:
        """These columns (None: all) as an Arrow batch."""
        wanted = list(self.columns if names is None else names)
        return pa.RecordBatch.from_arrays([self.columns[n].arrow for n in wanted], names=wanted)
