from __future__ import annotations

import polars as pl

from tests.operators.support import column, reasons, rows, run


def test_columns_are_added_and_replaced() -> None:
    result = run(lambda s: s.with_columns((pl.col("x") + 1).alias("x"), z=pl.col("x") * 10).to("out"), rows(1, 2))
    assert column(result, "x") == [2, 3]
    assert column(result, "z") == [10, 20]


def test_literals_alone_keep_the_number_of_rows() -> None:
    result = run(lambda s: s.with_columns(one=pl.lit(1), word=pl.lit("w")).to("out"), rows(1, 2, 3))
    assert column(result, "one") == [1, 1, 1]
    assert column(result, "word") == ["w", "w", "w"]


def test_a_python_function_that_raises_costs_its_own_record_only() -> None:
    def halve(x: int) -> int:
        if x == 2:
            raise ValueError("secret")
        return x // 2

    made = pl.col("x").map_elements(halve, return_dtype=pl.Int64)
    result = run(lambda s: s.with_columns(z=made).to("out"), rows(4, 2, 8))
    assert column(result, "z") == [2, 4]
    assert reasons(result) == [(1, "with-columns-1", "processing")]
    assert "secret" not in str(result.dead)
