from __future__ import annotations

from typing import Any

import polars as pl

from tests.operators.support import column, reasons, rows, run


def test_a_broken_rule_makes_a_dead_letter_that_names_the_first_one_broken() -> None:
    rules: dict[str, Any] = {"small": pl.col("x") < 10, "even": pl.col("x") % 2 == 0}
    result = run(lambda s: s.expect(**rules).to("out"), rows(2, 3, 11, 12))
    assert column(result, "x") == [2]
    assert [told["rule"] for _, _, told in result.dead] == ["even", "small", "small"]
    assert {told["class"] for _, _, told in result.dead} == {"validation"}


def test_null_passes() -> None:
    assert column(run(lambda s: s.expect(small=pl.col("x") < 1).to("out"), rows(None, 5)), "x") == [None]


def test_a_record_that_fails_in_two_places_is_one_dead_letter() -> None:
    def both(s):  # type: ignore[no-untyped-def]  # a stream
        s.expect(name="first", small=pl.col("x") < 1).to("out")
        s.expect(name="second", small=pl.col("x") < 1).to("more")

    result = run(both, rows(5, 0))
    assert reasons(result) == [(0, "first", "validation")]
    assert +result.outcomes == {"dlq": 1, "ok": 1}
