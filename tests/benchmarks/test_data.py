from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from datetime import datetime
from io import BytesIO

import fastavro
import polars as pl

from benchmarks import data
from benchmarks.events import FLIGHT
from benchmarks.setup import PARTITIONS


def test_every_partition_gets_the_same_share_in_event_order() -> None:
    records = 150_000  # more than a month, so that the seam is in it
    rows = data.flights(data.Input(records))
    partitions = [p for month in data.in_topic(data.Input(records), 1) for p in month.partitions]
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
    got = data.expected("c", data.Input(PARTITIONS * len(flights)))
    assert dict(zip(zip(got["origin"], got["window_start"], strict=True), got["total"], strict=True)) == dict(want)


def test_a_second_month_is_the_first_one_moved() -> None:
    month = len(data.month())
    rows = data.flights(data.Input(2 * month))
    first, second = rows.head(month), rows.tail(month)
    assert second.equals(first.with_columns(pl.col("at") + data.MONTH_MS))
    assert second["at"].max() == data.month()["at"].max()


def test_the_yield_of_a_job_is_the_number_of_flights_that_left() -> None:
    departed = data.flights(data.Input(20_000))["dep_delay"].count()
    assert [data.outputs(job, data.Input(20_000)) for job in "abcd"] == [departed, 20_000, None, departed]


def test_with_a_number_of_keys_only_the_places_of_departure_are_others() -> None:
    records = len(data.month()) + 1_000
    plain, keyed = data.Input(records), data.Input(records, keys=10)
    months = list(data.in_topic(keyed, 1))
    assert [key.decode() for month in months for key in month.keys] == data.flights(keyed)["origin"].to_list()
    assert len(set(data.flights(keyed)["origin"])) == 10
    assert data.flights(keyed).drop("origin").equals(data.flights(plain).drop("origin"))
    last = fastavro.schemaless_reader(
        BytesIO(months[-1].values[-1][5:]), fastavro.parse_schema(json.loads(FLIGHT)), None
    )
    assert isinstance(last, dict)
    assert last["origin"] == data.flights(keyed)["origin"][-1]
