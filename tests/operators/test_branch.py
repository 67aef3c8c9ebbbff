from __future__ import annotations

import polars as pl

from streampipe import Stream
from tests.operators.support import column, reasons, rows, run


def test_each_record_goes_to_the_first_predicate_that_is_true_for_it() -> None:
    def split(s: Stream) -> None:
        low, mid = s.branch(pl.col("x") < 5, pl.col("x") < 10)
        low.to("low")
        mid.to("mid")

    result = run(split, rows(1, 7, 20, None, 4))
    assert column(result, "x", "low") == [1, 4]
    assert column(result, "x", "mid") == [7]
    assert +result.outcomes == {"ok": 3, "filtered": 2}


def test_a_predicate_is_asked_only_for_records_that_no_earlier_one_took() -> None:
    def split(s: Stream) -> None:
        first, second = s.branch(pl.col("x") == 1, pl.col("s").cast(pl.Int64) == 2)
        first.to("first")
        second.to("second")

    events = [*rows(1, s="no number"), *rows(0, s="2"), *rows(0, s="no number")]
    result = run(split, events)
    assert column(result, "x", "first") == [1]
    assert column(result, "s", "second") == ["2"]
    assert reasons(result) == [(2, "branch-1-arm-2", "processing")]
