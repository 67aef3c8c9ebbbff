"""Joins: keys match by the one key encoding, missing rows, tombstones, names, partitions."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from streampipe import Processor
from streampipe.errors import TopologyError
from streampipe.records import TopicPartition, batch_of
from streampipe.schemas.keys import encode_keys
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import avro
from tests.operators.support import FOLDER, column, reasons, rows

IN = avro("In", k="string", x=["null", "int"], y=["null", "double"], s=["null", "string"])
TABLE = avro("Row", k="string", x="int", label="string")


def joined(key: Any, on: Any, folder: str, **options: Any) -> Driver:
    p = Processor("p")
    table = p.global_table("rows", key=key, schema=TABLE)
    p.source("in").join(table, on=on, columns=options.pop("columns", ["label"]), **options).to("out")
    return Driver(p, {"in": IN, "rows": TABLE}, FOLDER / folder)


def load(driver: Driver, *entries: tuple[str | None, Any]) -> list[str]:
    return driver.task.load(batch_of(driver.encode([Event("rows", key, value, 0) for key, value in entries])))


def row(label: str) -> dict[str, Any]:
    return {"k": "k", "x": 1, "label": label}


@pytest.mark.parametrize(
    ("key", "columns"),
    [
        ("k", [pl.Series("k", ["k"])]),
        ("x", [pl.Series("x", [1])]),
        (("k", "x"), [pl.Series("k", ["k"]), pl.Series("x", [1])]),
    ],
)
def test_keys_match_those_that_the_key_encoding_makes(key: Any, columns: list[pl.Series]) -> None:
    [encoded] = encode_keys(columns)
    assert encoded is not None
    driver = joined(key, key, f"codec-{key}")
    assert load(driver, (encoded.decode(), row("found"))) == []
    assert column(driver.feed(rows(1)).finish(), "label") == ["found"]


def test_a_row_that_is_missing_filters_an_inner_join_and_gives_a_left_one_nulls() -> None:
    for how, labels in (("inner", ["one"]), ("left", ["one", None, None])):
        driver = joined("x", "x", f"missing-{how}", how=how)
        load(driver, ("1", row("one")))
        result = driver.feed(rows(1, 2, None)).finish()
        assert column(result, "label") == labels
        assert result.outcomes["filtered"] == 3 - len(labels)


def test_a_tombstone_deletes_and_a_bad_row_is_told_and_left_out() -> None:
    driver = joined("x", "x", "tombstone", how="left")
    told = load(driver, ("1", row("one")), ("2", row("two")), ("1", None), ("2", b"garbage"), (None, row("keyless")))
    assert [line.split(":")[0] for line in told] == ["rows[0]@3", "rows[0]@4"]
    assert column(driver.feed(rows(1, 2)).finish(), "label") == [None, "two"]


def test_columns_and_prefix_name_what_is_added() -> None:
    driver = joined("x", "x", "prefix", prefix="row_", columns=["k", "label"])
    load(driver, ("1", row("one")))
    [(_, event, _)] = driver.feed(rows(1)).finish().records["out"]
    assert list(event) == ["k", "x", "y", "s", "row_k", "row_label"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"columns": None}, "both have k.*prefix"), ({"columns": ["no"]}, "no column 'no', only k, x, label")],
)
def test_names_that_clash_or_are_not_there_are_refused_at_start(options: Any, message: str) -> None:
    with pytest.raises(TopologyError, match=message):
        joined("x", "x", "names", **options)


def test_a_function_and_a_rule_after_a_left_join_see_nulls() -> None:
    p = Processor("p")
    table = p.global_table("rows", key="x", schema=TABLE)
    seen = []

    def look(event: dict[str, Any]) -> None:
        seen.append(event["label"])

    stream = p.source("in").join(table, on="x", how="left", columns=["label"])
    stream.expect(known=pl.col("label").is_not_null()).to("out")
    stream.handle(look, schema=IN).to("nothing")
    result = Driver(p, {"in": IN, "rows": TABLE}, FOLDER / "nulls").feed(rows(1)).finish()
    assert seen == [None]
    assert reasons(result) == [(0, "expect-1", "validation")]


def test_a_restored_table_equals_one_that_was_processed_and_partitions_stay_apart() -> None:
    def made() -> Driver:
        p = Processor("p")
        table = p.table("rows", key="k", schema=TABLE)
        p.source("in", key="k").join(table, on="k", columns=["label"], how="left").to("out")
        return Driver(p, {"in": IN, "rows": TABLE}, FOLDER / "restored")

    table = [Event("rows", "k", row("old"), 0), Event("rows", "k", row("new"), 0), Event("rows", "k", b"garbage", 0)]
    stream = [*rows(1), Event("in", "k", {"k": "k", "x": 2, "y": None, "s": None}, 1, 1)]
    live, restored = made(), made()
    live.feed(table)
    [what] = [r for r in assigned(restored) if r.source.partition == 0]
    restored.task.restore(what, batch_of(restored.encode(table)))
    for driver in (live, restored):
        assert column(driver.feed(stream).finish(), "label") == ["new", None]


def assigned(driver: Driver) -> list[Any]:
    driver.task = driver.builder.build()
    return driver.task.assign([TopicPartition(t, p) for t in ("in", "rows") for p in range(4)])
