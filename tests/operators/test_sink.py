"""Sinks: which schema they write, what they refuse at start, and what a row that does not fit costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from streampipe import Processor, Stream
from streampipe.errors import TopologyError
from streampipe.records import batch_of
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import avro
from tests.operators.support import FOLDER, IN, column, driver, reasons, rows, run


def test_a_row_that_does_not_fit_is_a_dead_letter_and_its_neighbours_are_written() -> None:
    schema = avro("Out", x="int")
    result = run(lambda s: s.select("x").to("out", schema=schema), rows(1, None, 3))
    assert column(result, "x") == [1, 3]
    assert reasons(result) == [(1, "to-out", "serialization")]


def test_keys_and_times_are_those_of_the_records() -> None:
    result = run(lambda s: s.filter(pl.col("x") > 1).to("out"), rows(1, 2, 3))
    assert [(key, time) for key, _, time in result.records["out"]] == [(b"k", 1), (b"k", 2)]


def test_several_sinks_of_one_topic_write_in_the_order_of_the_records() -> None:
    def split(s: Stream) -> None:
        odd, even = s.branch(pl.col("x") % 2 == 1, pl.lit(True))
        even.to("out", name="even")
        odd.to("out", name="odd")

    assert column(run(split, rows(1, 2, 3, 4)), "x") == [1, 2, 3, 4]


def test_a_column_that_is_missing_takes_its_default_else_it_is_refused_at_start() -> None:
    with_default = '{"type":"record","name":"Out","fields":[{"name":"z","type":"int","default":4}]}'
    assert column(run(lambda s: s.select("x").to("out", schema=with_default), rows(1)), "z") == [4]
    with pytest.raises(TopologyError, match=r"has field 'z', which is not among the columns: x"):
        driver(lambda s: s.select("x").to("out", schema=avro("Out", z="int")))


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (pl.col("s"), "int"),
        (pl.col("x"), "string"),
        (pl.col("y"), "long"),
        (pl.col("x") > 1, "int"),
        (pl.col("x"), "boolean"),
        (pl.col("x"), {"type": "long", "logicalType": "timestamp-millis"}),
        (pl.lit(0).cast(pl.Datetime("ms")), "long"),
    ],
)
def test_a_column_of_another_kind_of_type_is_refused_at_start(made: pl.Expr, wanted: object) -> None:
    with pytest.raises(TopologyError, match=r"column 'v' is .*, but topic 'out' has .*cast it"):
        driver(lambda s: s.select(v=made).to("out", schema=avro("Out", v=["null", wanted])))


def test_an_integer_may_be_written_as_a_longer_one_or_a_double_and_a_time_in_another_unit() -> None:
    schema = avro("Out", a="long", b="double", t={"type": "long", "logicalType": "timestamp-millis"})
    made: dict[str, Any] = {"a": pl.col("x"), "b": pl.col("x"), "t": pl.lit(5_000).cast(pl.Datetime("us"))}
    result = run(lambda s: s.select(**made).to("out", schema=schema), rows(1))
    assert column(result, "a") == [1]
    assert column(result, "b") == [1.0]
    assert column(result, "t")[0].microsecond == 5_000


def test_an_inferred_schema_follows_the_columns_and_a_file_is_followed(tmp_path: Path) -> None:
    def once(make: object) -> list[str]:
        p = Processor("p")
        make(p.source("in"))  # type: ignore[operator]
        d = Driver(p, {"in": IN}, tmp_path)
        return list(d.feed(rows(1)).finish().records["out"][0][1])

    assert once(lambda s: s.select("k").to("out")) == ["k"]
    assert once(lambda s: s.select("k", "x").to("out")) == ["k", "x"]
    (tmp_path / "out.avsc").write_text(avro("out", x=["null", "int"]))
    assert once(lambda s: s.select("k", "x").to("out")) == ["x"]


def test_a_table_gets_every_row_of_a_record_and_a_tombstone_for_those_taken_back() -> None:
    rows = [{"k": k, "retracted": gone} for k, gone in (("a", False), ("b", True), ("c", False), ("d", True))]
    p = Processor("p")
    changed = avro("Changed", k="string", retracted="boolean")
    p.source("in", key="k").handle(lambda _: rows, schema=changed).to_table("out")
    driver = Driver(p, {"in": avro("In", k="string")}, FOLDER / "to-table")
    driver.task.process([batch_of(driver.encode([Event("in", "k", {"k": "k"}, 0)]))])
    [batch] = driver.task.drain().records
    written = [value and value[5:] for value in batch.values]
    assert written == [b"\x02a", None, b"\x02c", None]
