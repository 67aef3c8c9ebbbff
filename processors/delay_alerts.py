"""An alert for every flight that left more than an hour late: a plain Python function over typed records.

A cancelled flight is valid and filtered before the function: it never left, so it was not late. A flight that left
within the hour is filtered by the function (`Skip`). A diverted flight has no arrival delay: its alert says null.
Broken records: see `processors.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from processors.rules import believed
from streampipe import Processor, Skip

ALERT_MINUTES = 60
VERY_LATE_MINUTES = 180

processor = Processor("delay-alerts", version=1)


@dataclass(frozen=True, slots=True)
class Flight:
    """What the function reads of a flight, named as in schemas/flights.avsc."""

    carrier: str
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    time_hour: datetime
    dep_delay: int
    arr_delay: int | None


@dataclass(frozen=True, slots=True)
class DelayAlert:
    """A flight that left late, named as in schemas/delay-alerts.avsc."""

    carrier: str
    flight: int
    tailnum: str | None
    origin: str
    dest: str
    time_hour: datetime
    dep_delay: int
    severity: str
    made_up_minutes: int | None


def alert(flight: Flight) -> DelayAlert | Skip:
    """Tell how late, how bad, and what the pilot made up in the air (None when it never arrived as planned)."""
    if flight.dep_delay <= ALERT_MINUTES:
        return Skip("left within the hour")
    made_up = None if flight.arr_delay is None else flight.dep_delay - flight.arr_delay
    return DelayAlert(
        carrier=flight.carrier,
        flight=flight.flight,
        tailnum=flight.tailnum,
        origin=flight.origin,
        dest=flight.dest,
        time_hour=flight.time_hour,
        dep_delay=flight.dep_delay,
        severity="VERY_LATE" if flight.dep_delay >= VERY_LATE_MINUTES else "LATE",
        made_up_minutes=made_up,
    )


flights = processor.source("flights", event_time="time_hour", key="origin")
believed(flights).filter(pl.col("dep_time").is_not_null()).handle(alert, to="delay-alerts")
