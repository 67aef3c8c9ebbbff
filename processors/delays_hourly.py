"""Departure delays per origin and hour of the scheduled departure: flights, cancelled, mean, maximum and P95.

Event time is `time_hour`, the hour of the scheduled departure. A window waits a day for its flights (`grace`): the
data lists a day's flights by the time at which they really left and its cancelled ones at the day's end, so a record
may come 18 hours after one of a later schedule. A record later than that is a dead letter of class `late`.

A cancelled flight is valid, counts in `flights` and `cancelled`, and has no part in the delays. An hour in which
every flight was cancelled would have null delays. Broken records: see `processors.rules`. Nothing is filtered.
"""

from __future__ import annotations

import polars as pl

from processors.rules import believed
from streampipe import Processor, Tumbling, agg

processor = Processor("delays-hourly", version=1)

(
    believed(processor.source("flights", event_time="time_hour", key="origin"))
    .key_by("origin")  # the topic is keyed so already: no repartition
    .window(Tumbling("1h", grace="1d"), emit="final", late="dead_letter")
    .agg(
        flights=agg.count(),
        cancelled=agg.sum(pl.col("dep_time").is_null()),
        mean_delay=agg.mean("dep_delay"),
        max_delay=agg.max("dep_delay"),
        p95_delay=agg.quantile("dep_delay", 0.95),
    )
    .to("delays-hourly")
)
