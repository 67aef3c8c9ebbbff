from __future__ import annotations

import polars as pl
import pytest

from streampipe import Stream
from streampipe.errors import TopologyError
from tests.operators.support import column, driver, rows, run


def test_arms_come_back_in_the_order_of_their_records() -> None:
    def rejoin(s: Stream) -> None:
        odd, even = s.branch(pl.col("x") % 2 == 1, pl.col("x") % 2 == 0)
        even.merge(odd).to("out")

    assert column(run(rejoin, rows(1, 2, 3, 4, 5)), "x") == [1, 2, 3, 4, 5]


def test_a_merge_of_merges_keeps_that_order() -> None:
    def rejoin(s: Stream) -> None:
        a, b, c = s.branch(pl.col("x") % 3 == 0, pl.col("x") % 3 == 1, pl.col("x") % 3 == 2)
        c.merge(b.merge(a).with_columns(z=pl.lit(1)).select("k", "x", "y", "s")).to("out")

    assert column(run(rejoin, rows(*range(10))), "x") == list(range(10))


def test_streams_with_other_columns_are_refused_and_both_are_shown() -> None:
    with pytest.raises(TopologyError, match=r"different columns.*x: int32.*select"):
        driver(lambda s: s.merge(s.select("k")).to("out"))
