"""Which flight records are believed: the validation rules that all processors of this folder share."""

from __future__ import annotations

import polars as pl

RULES = {
    # The longest delay ever in this data is 1,301 minutes, the earliest departure 43 minutes before schedule.
    "plausible_delay": pl.col("dep_delay").is_between(-120, 2880),
    "positive_distance": pl.col("distance") > 0,
    "goes_somewhere": pl.col("origin") != pl.col("dest"),
}
"""A record that breaks one becomes a dead letter of class `validation` that names the rule. A null passes (as in
an SQL CHECK): a cancelled flight has no departure delay, and that is no fault of the record."""
