"""Which expressions a processor may use: those whose answer for a record depends on that record alone."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pytest

from streampipe.errors import TopologyError
from streampipe.operators.expressions import Evaluator
from streampipe.operators.frame import Frame, Origin
from streampipe.records import Record, batch_of

SCHEMA = pa.schema([
    ("x", pa.int64()), ("y", pa.float64()), ("k", pa.string()), ("t", pa.timestamp("ms", "UTC")),
    ("xs", pa.list_(pa.int64())), ("b", pa.bool_()), ("m", pa.map_(pa.string(), pa.int64())),
])  # fmt: skip
X, K, XS = pl.col("x"), pl.col("k"), pl.col("xs")


def identity(x: int) -> int:
    return x


FUNCTION = X.map_elements(identity, return_dtype=pl.Int64)

REFUSED = {
    "sum": X.sum(), "shift": X.shift(), "over": X.sum().over("k"), "rank": X.rank(), "mean inside": X - X.mean(),
    "cum_sum": X.cum_sum(), "len": pl.len(), "int_range": pl.int_range(pl.len()), "sort": X.sort(), "head": X.head(1),
    "reverse": X.reverse(), "unique": X.unique(), "explode": XS.explode(), "filter": X.filter(X > 1),
    "drop_nulls": X.drop_nulls(), "interpolate": X.interpolate(), "forward_fill": X.forward_fill(),
    "fill mean": X.fill_null(strategy="mean"), "rolling": X.rolling_mean(2), "diff": X.diff(), "first": X.first(),
    "is_duplicated": X.is_duplicated(), "any": pl.col("b").any(), "when mean": pl.when(X.mean() < X).then(1),
    "struct of max": pl.struct(a=X.max()), "shuffle": X.shuffle(), "format from the first row": K.str.to_datetime(),
    "literal column": pl.lit(pl.Series([1, 2])), "append": X.append(X), "sum of a function": FUNCTION.sum(),
    "shift of a function": FUNCTION.shift(), "function of a sum": X.sum().map_elements(identity, return_dtype=pl.Int64),
    "arithmetic around a function": FUNCTION + 1,
}  # fmt: skip

ALLOWED = {
    "arithmetic": X * 2 + pl.col("y"), "function": FUNCTION, "when": pl.when(X > 1).then(pl.lit("a")).otherwise(K),
    "literal": pl.lit(1), "null": pl.lit(None), "string": K.str.to_uppercase(), "datetime": pl.col("t").dt.hour(),
    "struct": pl.struct("x", "y"), "is_in": X.is_in([1, 2]), "fill": X.fill_null(0), "concat": pl.concat_str(K, K),
    "coalesce": pl.coalesce(X, 0), "max of columns": pl.max_horizontal("x", "y"), "list": XS.list.sum(),
    "cast": X.cast(pl.String), "format": K.str.to_datetime("%Y"), "replace": X.replace({1: 2}),
    "map column": pl.col("m"), "between": X.is_between(1, 2), "hash": X.hash(), "not": ~pl.col("b"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_expression_that_looks_beyond_its_row_is_refused_at_start(name: str) -> None:
    with pytest.raises(TopologyError, match="node 'n'"):
        Evaluator("n", [REFUSED[name].alias("z")], SCHEMA)


@pytest.mark.parametrize("name", ALLOWED)
def test_a_row_by_row_expression_gives_a_value_for_each_row_the_same_alone_and_together(name: str) -> None:
    evaluate = Evaluator("n", [ALLOWED[name].alias("z")], SCHEMA)
    origin = Origin.of(batch_of([Record("in", 0, i, 0, None, b"") for i in range(3)]))
    values = [(1, 0.5, "2020", 0, [1], True, [("a", 1)]), (None,) * 7, (3, 1.5, "1999", 10**12, [], False, [])]
    table = [pa.array(column, field.type) for column, field in zip(zip(*values, strict=True), SCHEMA, strict=True)]
    frame = Frame.of(pa.RecordBatch.from_arrays(table, schema=SCHEMA), origin)
    together = evaluate(frame)["z"].arrow.to_pylist()
    alone = [evaluate(frame.take(pa.array([i]).to_numpy()))["z"].arrow.to_pylist() for i in range(3)]
    assert [[value] for value in together] == alone


def test_selectors_are_the_columns_they_select() -> None:
    assert Evaluator("n", [pl.all()], SCHEMA).names == SCHEMA.names
    assert Evaluator("n", [pl.col("x", "y")], SCHEMA).names == ["x", "y"]


def test_one_expression_over_many_columns_is_refused_and_they_are_named() -> None:
    with pytest.raises(TopologyError, match="one expression for each of the columns x, y"):
        Evaluator("n", [pl.col("x", "y") + 1], SCHEMA)


def test_an_unknown_column_names_the_columns_there_are() -> None:
    with pytest.raises(TopologyError, match=r"node 'n': .*nope.*; columns here: x, y, k, t, xs, b, m"):
        Evaluator("n", [pl.col("nope")], SCHEMA)


def test_a_misspelt_column_suggests_the_nearest_and_lists_the_columns_once() -> None:
    schema = pa.schema([("delay", pa.int64()), ("origin", pa.string())])
    for expression in (pl.col("dealy"), pl.col("dealy") > pl.col("delay")):
        with pytest.raises(TopologyError) as raised:
            Evaluator("n", [expression], schema)
        told = "node 'n': unable to find column \"dealy\" (did you mean 'delay'?); columns here: delay, origin"
        assert str(raised.value) == told
    with pytest.raises(TopologyError) as raised:
        Evaluator("n", [pl.col("zzz")], schema)
    assert "did you mean" not in str(raised.value)


def test_a_type_error_is_found_at_start() -> None:
    with pytest.raises(TopologyError, match="node 'n'"):
        Evaluator("n", [X.str.to_uppercase()], SCHEMA)


def test_a_column_that_polars_cannot_hold_is_refused_where_it_is_read_and_passes_elsewhere() -> None:
    schema = pa.schema([("long", pa.decimal256(50, 2)), ("x", pa.int64())])
    assert Evaluator("n", [X + 1], schema).names == ["x"]
    with pytest.raises(TopologyError, match="long"):
        Evaluator("n", [pl.col("long") + 1], schema)
