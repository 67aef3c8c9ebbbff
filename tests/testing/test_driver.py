"""The driver says what a worker does, and refuses what a test cannot have meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from streampipe import Processor, Tumbling, agg
from streampipe.errors import ConfigError, NotFound, StreampipeError
from streampipe.testing import TopologyTestDriver
from tests.cli.conftest import SCHEMA

ROOT = Path(__file__).resolve().parents[2]
T = datetime(2024, 5, 1, 10, tzinfo=UTC)


def click(user: str, n: int | None, minute: int = 0) -> dict[str, Any]:
    return {"user": user, "n": n, "at": T + timedelta(minutes=minute)}


def counter() -> Processor:
    """Two aggregates, one behind a repartition topic; a table and a global table."""
    made = Processor("counter")
    clicks = made.source("clicks", event_time="at", key="user", schema=SCHEMA)
    names = made.table("names", key="user", schema=SCHEMA)
    everywhere = made.global_table("bonus", key="user", schema=SCHEMA)
    joined = clicks.join(names, on="user", how="left", columns=["n"], prefix="name_")
    joined = joined.join(everywhere, on="user", how="left", columns=["n"], prefix="bonus_")
    joined.to("joined")
    clicks.window(Tumbling("1h"), late="drop").agg(clicks=agg.count()).to("clicks-hourly")
    clicks.with_columns(parity=pl.col("n") % 2).key_by("parity").agg(total=agg.sum("n")).to("by-parity")
    return made


@pytest.fixture
def driver() -> Iterator[TopologyTestDriver]:
    with TopologyTestDriver(counter(), partitions=3) as driver:
        yield driver


def test_the_code_of_the_page_on_testing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/testing.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    tests = [test for name, test in names.items() if name.startswith("test_")]
    assert len(tests) == 5
    for test in tests:
        test()


def test_records_of_one_key_meet_whatever_partition_they_came_from(driver: TopologyTestDriver) -> None:
    for user, n in [("a", 1), ("b", 3), ("c", 4), ("d", 5)]:
        driver.send("clicks", click(user, n))
    totals = [event["total"] for event in driver.events("by-parity") if event and event["parity"] == 1]
    assert totals == [1, 4, 9]


def test_tables_and_global_tables_are_joined_and_tombstones_delete_from_them(driver: TopologyTestDriver) -> None:
    for topic in ("names", "bonus"):
        driver.send(topic, click("a", 7), click("b", 8))
        driver.send(topic, None, key="b")
    driver.send("clicks", click("a", 1), click("b", 1))
    joined = {e["user"]: (e["name_n"], e["bonus_n"]) for e in driver.events("joined") if e}
    assert joined == {"a": (7, 7), "b": (None, None)}


def test_a_restart_brings_back_tables_aggregates_windows_and_nothing_twice(driver: TopologyTestDriver) -> None:
    driver.send("names", click("a", 7))
    driver.send("bonus", click("a", 9))
    driver.send("clicks", click("a", 1))
    before = {store: driver.state(store) for store in ("names", "bonus", "window-1", "agg-1")}
    assert all(before.values())
    driver.restart()
    assert {store: driver.state(store) for store in before} == before
    driver.send("clicks", click("a", 1))
    driver.close_windows()
    assert [(e["name_n"], e["bonus_n"]) for e in driver.events("joined") if e] == [(7, 9)] * 2
    assert [e["clicks"] for e in driver.events("clicks-hourly") if e] == [2]
    assert [e["total"] for e in driver.events("by-parity") if e] == [1, 2]


def test_what_was_read_is_not_read_again(driver: TopologyTestDriver) -> None:
    driver.send("clicks", click("a", 1))
    assert len(driver.events("joined")) == 1
    assert driver.events("joined") == []
    driver.send("clicks", click("a", 2))
    assert [e["n"] for e in driver.events("joined") if e] == [2]


def test_key_time_and_headers_are_what_they_are_given_as(driver: TopologyTestDriver) -> None:
    driver.send("clicks", b"garbage", key="mine", timestamp=T, headers=[("trace", b"1")])
    [letter] = driver.dead_letters()
    assert (letter.key, letter.value, letter.timestamp) == (b"mine", b"garbage", int(T.timestamp() * 1000))
    assert list(letter.headers) == [("trace", b"1")]


@pytest.mark.parametrize(
    ("topic", "event", "error", "says"),
    [
        ("nobody", {"user": "a"}, NotFound, "reads no topic 'nobody'; it reads bonus, clicks, counter-"),
        ("clicks", {"user": "a", "at": T, "m": 1}, ConfigError, "'clicks' has no field 'm'; it has user, n, at"),
        ("clicks", {"user": "a"}, ConfigError, "not of the schema of topic 'clicks': at is null"),
        ("clicks", {"user": "a", "at": T, "n": "x"}, ConfigError, "not of the schema of topic 'clicks'"),
    ],
)
def test_what_a_test_cannot_have_meant_is_refused_with_the_reason(
    driver: TopologyTestDriver, topic: str, event: dict[str, Any], error: type[StreampipeError], says: str
) -> None:
    with pytest.raises(error, match=re.escape(says)):
        driver.send(topic, event)
    assert driver.dead_letters() == []


def test_a_time_without_zone_is_refused(driver: TopologyTestDriver) -> None:
    with pytest.raises(ConfigError, match="has no time zone"):
        driver.send("clicks", click("a", 1), timestamp=T.replace(tzinfo=None))


def test_an_unknown_store_is_refused_with_those_there_are(driver: TopologyTestDriver) -> None:
    with pytest.raises(NotFound, match=r"no store 'windw'; there are: .*window-1"):
        driver.state("windw")
