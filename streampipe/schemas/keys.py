"""Record keys out of columns: the one encoding that producing, re-keying and joining share.

One column: text as its UTF-8, whole numbers in decimal, booleans as true and false, binary as it is, times in ISO
8601, other scalars in Polars' text form; null means a record without key. Several columns: a compact JSON object in
the order given, whole numbers and booleans as such, all others as that text; its nulls included, so never no key.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from streampipe.errors import TopologyError


def encode_keys(columns: Sequence[pl.Series]) -> list[bytes | None]:
    """Keys of all rows of these columns. Raises TopologyError for no column, or one that has no text form."""
    if not columns:
        raise TopologyError("a key needs at least one column")
    if len(columns) == 1:
        column = columns[0]
        text = column if column.dtype == pl.Binary else _text(column)
    else:
        text = pl.DataFrame([_json_member(column) for column in columns]).to_struct().struct.json_encode()
    keys: list[bytes | None] = text.cast(pl.Binary).to_list()
    return keys


def _text(column: pl.Series) -> pl.Series:
    if column.dtype in (pl.Date, pl.Time) or isinstance(column.dtype, pl.Datetime):
        return column.dt.to_string("iso:strict")
    if column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object):
        raise TopologyError(f"column {column.name!r} is {column.dtype}, which cannot be part of a key; cast it")
    return column.cast(pl.String)


def _json_member(column: pl.Series) -> pl.Series:
    return column if column.dtype.is_integer() or column.dtype == pl.Boolean else _text(column)
