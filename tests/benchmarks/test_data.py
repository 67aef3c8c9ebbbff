from __future__ import annotations

import csv
import gzip
from collections import Counter
from datetime import datetime

import polars as pl

from benchmarks import data
from benchmarks.setup import PARTITIONS


def test_every_partition_gets_the_same_share_in_event_order() -> None:
    records = 150_000  # more than a month, so that the seam is in it
    rows = data.flights(records)
    partitions = data.partitions([origin.encode() for origin in rows["origin"]])
    assert Counter(partitions) == dict.fromkeys(range(PARTITIONS), records // PARTITIONS)
    assert rows["at"].is_sorted()


def test_the_oracle_of_the_windows_is_what_plain_python_counts_from_the_csv() -> None:
    with gzip.open(data.FOLDER / "flights.csv.gz", "rt") as file:
        flights = list(csv.DictReader(file))
    want: Counter[tuple[str, int]] = Counter()
    for flight in flights:
        if flight["dep_delay"] not in {"", "NA"}:
            at = int(datetime.fromisoformat(flight["time_hour"]).timestamp() * 1000)
            for origin in data.spread(flight["origin"]):
                want[origin, at] += int(flight["dep_delay"])
    got = data.expected("c", PARTITIONS * len(flights))
    assert dict(zip(zip(got["origin"], got["window_start"], strict=True), got["total"], strict=True)) == dict(want)


def test_a_second_month_is_the_first_one_moved() -> None:
    month = len(data.month())
    rows = data.flights(2 * month)
    first, second = rows.head(month), rows.tail(month)
    assert second.equals(first.with_columns(pl.col("at") + data.MONTH_MS))
    assert second["at"].max() == data.month()["at"].max()


def test_the_yield_of_a_job_is_the_number_of_flights_that_left() -> None:
    departed = data.flights(20_000)["dep_delay"].count()
    assert [data.outputs(job, 20_000) for job in "abcd"] == [departed, 20_000, None, departed]
