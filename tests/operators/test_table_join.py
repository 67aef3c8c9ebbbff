"""Joins of two tables: Kafka Streams' answers, and what no crash and no cut may change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe import Processor
from streampipe.errors import TopologyError
from streampipe.testing import TopologyTestDriver
from streampipe.topology.describe import describe
from tests.operators.kafka_streams import cases
from tests.operators.pipelines import avro
from tests.proof import EXAMPLES, patient

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Told = tuple[str, str | None, int]
"""Key, left|right or None for a row that is gone, and time of a result."""


class Row(NamedTuple):
    """A change of table a or b."""

    table: str
    key: str
    value: str | None
    time: int


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("table-join")
    for name in "ab":
        (folder / f"{name}.avsc").write_text(avro(name.upper(), k="string", v="string"))
    (folder / "other.avsc").write_text(avro("Other", k="int", v="string"))
    return str(folder)


def joined(how: Any, *, name: str = "p") -> Processor:
    p = Processor(name)
    changes = p.table("a", key="k").join(p.table("b", key="k"), how=how, prefix="right_")
    changes.to("changes")
    changes.to_table("rows")
    return p


@contextmanager
def driving(how: str, schemas: str) -> Iterator[TopologyTestDriver]:
    with TopologyTestDriver(joined(how), schemas=schemas) as driver:
        yield driver


def send(driver: TopologyTestDriver, *rows: Row) -> None:
    """Several rows in one batch, which are of one table then."""
    table, time = rows[0].table, EPOCH + timedelta(milliseconds=rows[0].time)
    if len(rows) == 1 and rows[0].value is None:
        driver.send(table, None, key=rows[0].key, timestamp=time)
    else:
        driver.send(table, *({"k": r.key, "v": r.value} for r in rows), timestamp=time)


def told(driver: TopologyTestDriver) -> list[Told]:
    """Results, the stream of changes and the table being the same but for how a row goes."""
    out: list[Told] = []
    for change, row in zip(driver.read("changes"), driver.read("rows"), strict=True):
        event, key = change.event, (change.key or b"").decode()
        assert event is not None
        assert event["k"] == key
        assert (row.key, row.timestamp) == (change.key, change.timestamp)
        assert row.event == (None if event["retracted"] else {n: event[n] for n in ("k", "v", "right_v")})
        text = None if event["retracted"] else f"{event['v'] or 'null'}|{event['right_v'] or 'null'}"
        assert not event["retracted"] or event["v"] is event["right_v"] is None
        out.append((key, text, (change.timestamp - EPOCH) // timedelta(milliseconds=1)))
    return out


@pytest.mark.parametrize("case", cases("table-table"), ids=lambda case: f"{case['id']}-{case['how']}")
def test_results_are_those_of_kafka_streams(case: dict[str, Any], schemas: str) -> None:
    with driving(case["how"], schemas) as driver:
        for number, row in enumerate(case["input"]):
            send(driver, Row(*row))
            assert told(driver) == [tuple(out) for n, *out in case["output"] if n == number]


def by_definition(how: str, rows: Sequence[Row]) -> list[Told]:
    tables: dict[str, dict[str, tuple[str, int]]] = {"a": {}, "b": {}}
    out: list[Told] = []
    for table, key, value, time in rows:
        mine, theirs = tables[table], tables["b" if table == "a" else "a"].get(key)
        had = mine.pop(key, None)
        if value is not None:
            mine[key] = value, time
        if (value is None and had is None) or (theirs is None and (how == "inner" or (how, table) == ("left", "b"))):
            continue
        left, right = tables["a"].get(key), tables["b"].get(key)
        there = (left and right) if how == "inner" else left if how == "left" else (left or right)
        text = f"{left[0] if left else 'null'}|{right[0] if right else 'null'}" if there else None
        out.append((key, text, max(time, theirs[1] if theirs else time)))
    return out


rows_ = st.lists(
    st.builds(Row, st.sampled_from("ab"), st.sampled_from("xyz"), st.none() | st.sampled_from("1234"),
              st.integers(0, 50)), max_size=30,
)  # fmt: skip


@pytest.mark.proof
@patient
@given(how=st.sampled_from(["inner", "left", "outer"]), rows=rows_, data=st.data())
@settings(max_examples=EXAMPLES // 4)
def test_no_crash_changes_a_result(how: str, rows: list[Row], data: Any, schemas: str) -> None:
    with driving(how, schemas) as driver:
        results: list[Told] = []
        for row in rows:
            send(driver, row)
            results += told(driver)
            if data.draw(st.booleans()):
                driver.restart()
        assert results == by_definition(how, rows)


@pytest.mark.proof
@patient
@given(how=st.sampled_from(["inner", "left", "outer"]), rows=rows_, data=st.data())
@settings(max_examples=EXAMPLES // 2)
def test_no_cut_changes_a_result(how: str, rows: list[Row], data: Any, schemas: str) -> None:
    rows = [row for row in rows if row.value is not None]
    with driving(how, schemas) as driver:
        results: list[Told] = []
        sent: list[Row] = []
        while len(sent) < len(rows):
            batch = [rows[len(sent)]]
            for row in rows[len(sent) + 1 :]:
                if row.table != batch[0].table or data.draw(st.booleans()):
                    break
                batch.append(row._replace(time=batch[0].time))
            send(driver, *batch)
            results += told(driver)
            sent += batch
        assert results == by_definition(how, sent)


def test_what_a_table_tells_can_be_processed_on_and_joined_with_a_stream(schemas: str) -> None:
    p = Processor("p")
    left, right = p.table("a", key="k"), p.table("b", key="k")
    rows = left.join(right, columns=["v"], prefix="b_")
    rows.filter(~pl.col("retracted")).select("k", both=pl.col("v") + pl.col("b_v")).to("both")
    with TopologyTestDriver(p, schemas=schemas, partitions=3) as driver:
        driver.send("a", {"k": "x", "v": "1"}, {"k": "y", "v": "2"})
        driver.send("b", {"k": "y", "v": "3"}, {"k": "x", "v": "4"}, b"garbage", key=None)
        assert sorted(event["both"] for event in driver.events("both") if event) == ["14", "23"]
        assert [letter.value for letter in driver.dead_letters()] == [b"garbage"]
        assert sorted(entry["columns"]["v"] for entry in driver.state("a")) == ["1", "2"]
        driver.restart()
        driver.send("a", {"k": "y", "v": "9"})
        assert driver.events("both") == [{"k": "y", "both": "93"}]


def test_one_table_may_be_joined_with_itself_under_another_name(schemas: str) -> None:
    p = Processor("p")
    p.table("a", key="k").join(p.table("a", key="k", name="again"), prefix="again_").to("out")
    with TopologyTestDriver(p, schemas=schemas) as driver:
        driver.send("a", {"k": "x", "v": "1"})
        assert driver.events("out")[-1] == {"k": "x", "v": "1", "again_v": "1", "retracted": False}


def test_it_is_described_and_what_it_cannot_be_is_refused(schemas: str) -> None:
    assert "join-1: outer join of tables a and b  -> to-changes, to-rows" in describe(joined("outer").topology)
    assert "to-rows: table rows" in describe(joined("outer").topology)
    p = Processor("p")
    with pytest.raises(TopologyError, match="'b' is a global_table"):
        p.table("a", key="k").join(p.global_table("b", key="k"))
    refused = [
        ("b", "", "both have v"),
        ("other", "o_", r"keyed by \(k string\) and table 'other' by \(k int32\)"),
    ]
    for other, prefix, message in refused:
        p = Processor("p")
        p.table("a", key="k").join(p.table(other, key="k"), prefix=prefix).to("out")
        with pytest.raises(TopologyError, match=message):
            TopologyTestDriver(p, schemas=schemas)
    p = Processor("p")
    p.source("a", key="k").to_table("out")
    with pytest.raises(TopologyError, match=r"to_table\(\) is for streams with a column 'retracted'"):
        TopologyTestDriver(p, schemas=schemas)
