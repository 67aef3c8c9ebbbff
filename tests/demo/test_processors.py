"""The processors' outputs against the same answers computed from the CSV files alone, on both brokers."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from demo.dataset import DATA, read
from streampipe.aggregates import RELATIVE_ERROR
from tests.demo.conftest import Ran

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # the fixture is a whole demo, on a busy machine as well


def times(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Times as consume prints them, as times."""
    return frame.with_columns(pl.col(*columns).str.to_datetime(time_unit="ms", time_zone="UTC"))


def lower_quantile(values: pl.Series, q: float) -> float:
    """The value at rank floor(q * (n - 1)), which is the quantile that agg.quantile approximates."""
    return float(values.sort()[int(q * (len(values) - 1))])


def test_hourly_delays_equal_those_computed_by_sql(ran: Ran) -> None:
    context = pl.SQLContext(flights=read("flights"), eager=True)
    expected = context.execute(
        """SELECT origin, time_hour AS window_start, COUNT(*) AS flights, COUNT(*) - COUNT(dep_time) AS cancelled,
                  AVG(dep_delay) AS mean_delay, MAX(dep_delay) AS max_delay
           FROM flights GROUP BY origin, time_hour ORDER BY origin, window_start"""
    )
    got = times(ran.results.hourly, "window_start", "window_end").sort("origin", "window_start")
    assert (got["window_end"] - got["window_start"]).unique().to_list() == [timedelta(hours=1)]
    columns = ["origin", "window_start", "flights", "cancelled", "mean_delay", "max_delay"]
    assert_frame_equal(got.select(columns), expected.select(columns), check_dtypes=False, check_exact=True)


def test_the_p95_is_within_the_error_that_the_sketch_states(ran: Ran) -> None:
    delays = read("flights").drop_nulls("dep_delay").group_by("origin", "time_hour").agg("dep_delay").rows()
    exact = {(origin, hour): lower_quantile(pl.Series(values), 0.95) for origin, hour, values in delays}
    got = times(ran.results.hourly, "window_start").select("origin", "window_start", "p95_delay").rows()
    assert len(got) == len(exact)
    for origin, hour, p95 in got:
        assert p95 == pytest.approx(exact[origin, hour], rel=RELATIVE_ERROR * (1 + 1e-9))


def enriched_by_polars() -> pl.DataFrame:
    planes = read("planes").select(
        "tailnum", *(pl.col(c).alias(f"plane_{c}") for c in ("year", "manufacturer", "model", "seats"))
    )
    weather = read("weather").select(
        "origin", "time_hour", *(pl.col(c).alias(f"weather_{c}") for c in ("temp", "wind_speed", "precip", "visib"))
    )
    flights = read("flights")
    return (
        pl.concat([flights, flights.head(1)])  # the late one is late for windows only
        .join(read("airlines").rename({"name": "airline_name"}), on="carrier", how="left", maintain_order="left")
        .join(
            read("airports").select(pl.col("faa").alias("dest"), pl.col("name").alias("dest_name")),
            on="dest", how="left", maintain_order="left",
        )
        .join(planes, on="tailnum", how="left", maintain_order="left")
        .join(weather, on=["origin", "time_hour"], how="left", maintain_order="left")
    )  # fmt: skip


def test_enriched_flights_equal_a_join_by_polars_row_by_row_and_in_order_of_their_key(ran: Ran) -> None:
    got = times(ran.results.enriched, "time_hour")
    expected = enriched_by_polars()
    columns = [column for column in got.columns if column in expected.columns]
    assert len(columns) == 21
    assert_frame_equal(
        got.select(columns).sort("origin", "time_hour", maintain_order=True),
        expected.select(columns).sort("origin", "time_hour", maintain_order=True),
        check_dtypes=False,
        check_exact=True,
    )


def alerts_by_a_loop() -> Counter[tuple[Any, ...]]:
    with gzip.open(DATA / "flights.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    alerts: Counter[tuple[Any, ...]] = Counter()
    for row in [*rows, rows[0]]:
        if row["dep_time"] == "NA" or int(row["dep_delay"]) <= 60:
            continue
        delay = int(row["dep_delay"])
        made_up = None if row["arr_delay"] == "NA" else delay - int(row["arr_delay"])
        tailnum = None if row["tailnum"] == "NA" else row["tailnum"]
        hour = datetime.strptime(row["time_hour"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        severity = "VERY_LATE" if delay >= 180 else "LATE"
        alerts[
            row["carrier"], int(row["flight"]), tailnum, row["origin"], row["dest"], hour, delay, severity, made_up
        ] += 1
    return alerts


def test_alerts_equal_those_of_a_plain_loop(ran: Ran) -> None:
    columns = (
        "carrier",
        "flight",
        "tailnum",
        "origin",
        "dest",
        "time_hour",
        "dep_delay",
        "severity",
        "made_up_minutes",
    )
    got = Counter(times(ran.results.alerts, "time_hour").select(columns).rows())
    assert got == alerts_by_a_loop()
    assert got.total() > 1_000
