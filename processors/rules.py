"""Which flight records are believed: the validation that all processors of this folder share."""

from __future__ import annotations

import polars as pl

from streampipe import Stream


def believed(flights: Stream) -> Stream:
    """Flights that break none of the rules; one that does is a dead letter of class `validation` naming the rule.

    A null passes (as in an SQL CHECK): a cancelled flight has no departure delay, which is no fault of the record.
    """
    return flights.expect(
        # In the whole year the longest delay is 1,301 minutes, the earliest departure 43 minutes before schedule.
        plausible_delay=pl.col("dep_delay").is_between(-120, 2880),
        positive_distance=pl.col("distance") > 0,
        goes_somewhere=pl.col("origin") != pl.col("dest"),
    )
