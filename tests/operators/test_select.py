from __future__ import annotations

import polars as pl
import pytest

from streampipe.errors import TopologyError
from tests.operators.support import driver, rows, run


def test_just_these_columns_go_on_in_this_order() -> None:
    result = run(lambda s: s.select("x", pl.col("k").alias("name"), twice=pl.col("x") * 2).to("out"), rows(3))
    [(_, event, _)] = result.records["out"]
    assert list(event.items()) == [("x", 3), ("name", "k"), ("twice", 6)]


def test_literals_alone_give_a_row_for_each_record() -> None:
    result = run(lambda s: s.select(one=pl.lit(1)).to("out"), rows(1, 2))
    assert [event for _, event, _ in result.records["out"]] == [{"one": 1}, {"one": 1}]


def test_an_unknown_column_is_refused_at_start_and_those_there_are_named() -> None:
    with pytest.raises(TopologyError, match=r"nope.*columns here: k, x, y, s"):
        driver(lambda s: s.select("nope").to("out"))


def test_two_columns_of_one_name_are_refused_at_start() -> None:
    with pytest.raises(TopologyError, match="select-1"):
        driver(lambda s: s.select("x", pl.col("k").alias("x")).to("out"))
