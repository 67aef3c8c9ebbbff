"""Keys: one text for one value, whoever writes it."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.errors import TopologyError
from streampipe.schemas.keys import encode_keys


@pytest.mark.parametrize(
    ("column", "keys"),
    [
        (pl.Series(["é", "", None]), ["é".encode(), b"", None]),
        (pl.Series([1, -2, None]), [b"1", b"-2", None]),
        (pl.Series([True, False, None]), [b"true", b"false", None]),
        (pl.Series([b"\xff\x00", None]), [b"\xff\x00", None]),
        (pl.Series([dt.date(2024, 2, 29), None]), [b"2024-02-29", None]),
        (pl.Series([dt.datetime(2024, 1, 1, tzinfo=dt.UTC)]), [b"2024-01-01T00:00:00.000000+00:00"]),
        (pl.Series(["a", "b"], dtype=pl.Categorical), [b"a", b"b"]),
        (pl.Series([], dtype=pl.String), []),
    ],
)
def test_one_column_is_its_text(column: pl.Series, keys: list[bytes | None]) -> None:
    assert encode_keys([column]) == keys


def test_several_columns_are_a_json_object_in_the_order_given() -> None:
    origin, day, n = pl.Series("o", ["JFK", None]), pl.Series("d", [dt.date(2024, 1, 1)] * 2), pl.Series("n", [7, 8])
    assert encode_keys([origin, day, n]) == [
        b'{"o":"JFK","d":"2024-01-01","n":7}',
        b'{"o":null,"d":"2024-01-01","n":8}',
    ]
    assert encode_keys([n, origin])[0] == b'{"n":7,"o":"JFK"}'


@given(st.lists(st.tuples(st.text(max_size=4), st.integers(-(2**63), 2**63 - 1)), unique=True, max_size=20))
def test_different_rows_have_different_keys(rows: list[tuple[str, int]]) -> None:
    columns = [pl.Series("s", [s for s, _ in rows], pl.String), pl.Series("n", [n for _, n in rows], pl.Int64)]
    assert len(set(encode_keys(columns))) == len(rows)


@pytest.mark.parametrize(
    "columns",
    [[], [pl.Series("l", [[1]])], [pl.Series("a", ["x"]), pl.Series("b", [b"\xff"])]],
    ids=["none", "list", "binary among several"],
)
def test_what_has_no_text_is_refused(columns: list[pl.Series]) -> None:
    with pytest.raises(TopologyError):
        encode_keys(columns)
