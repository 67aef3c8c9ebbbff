from __future__ import annotations

import polars as pl
import pytest

from streampipe.errors import TopologyError
from tests.operators.support import column, driver, reasons, rows, run


def test_null_counts_as_false() -> None:
    result = run(lambda s: s.filter(pl.col("x") > 1).to("out"), rows(1, None, 2))
    assert column(result, "x") == [2]
    assert +result.outcomes == {"filtered": 2, "ok": 1}


def test_a_constant_predicate_keeps_or_drops_everything() -> None:
    assert column(run(lambda s: s.filter(pl.lit(True)).to("out"), rows(1, 2)), "x") == [1, 2]
    assert run(lambda s: s.filter(pl.lit(False)).to("out"), rows(1, 2)).outcomes["filtered"] == 2


def test_a_predicate_that_is_not_boolean_is_refused_at_start() -> None:
    with pytest.raises(TopologyError, match="not Boolean"):
        driver(lambda s: s.filter(pl.col("x")).to("out"))


def test_a_record_that_cannot_be_evaluated_is_a_dead_letter_and_its_neighbours_go_on() -> None:
    events = [*rows(1, s="1"), *rows(2, s="secret"), *rows(3, s="3")]
    result = run(lambda s: s.filter(pl.col("s").cast(pl.Int64) > 0).to("out"), events)
    assert column(result, "x") == [1, 3]
    assert reasons(result) == [(1, "filter-1", "processing")]
    assert "secret" not in str(result.dead[0][2])
