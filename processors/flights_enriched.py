"""Every flight with its airline, destination, plane and the weather at the hour of its scheduled departure.

Airlines, airports and planes are small and looked up by keys that have nothing to do with the stream's: global
tables, whole on every worker. Weather grows by the hour, so it is a co-partitioned table: the stream is keyed by
(origin, time_hour) like the weather topic, and each worker holds its own partitions of it only.

What the data lacks, case by case:

- A cancelled flight (no departure time) is valid and goes through with nulls.
- A missing tail number, or one that the planes topic does not have (one flight in six), is valid: plane columns null.
- A destination that the airports topic does not have (Puerto Rico, the Virgin Islands) is valid: `dest_name` null.
- An hour without weather observation is valid: weather columns null.
- A record that breaks a rule of `processors.rules` is a dead letter of class `validation`.
- Bytes that are no flight are dead letters of class `deserialization` or `schema`.

Nothing is filtered: what comes in goes out or is a dead letter.
"""

from __future__ import annotations

from processors.rules import believed
from streampipe import Processor

processor = Processor("flights-enriched", version=1)

flights = processor.source("flights", event_time="time_hour", key="origin")
airlines = processor.global_table("airlines", key="carrier")
airports = processor.global_table("airports", key="faa")
planes = processor.global_table("planes", key="tailnum")
weather = processor.table("weather", key=("origin", "time_hour"))

(
    believed(flights)
    .join(airlines, on="carrier", how="left", columns=["name"], prefix="airline_")
    .join(airports, on="dest", how="left", columns=["name"], prefix="dest_")
    .join(planes, on="tailnum", how="left", columns=["year", "manufacturer", "model", "seats"], prefix="plane_")
    .key_by("origin", "time_hour")
    .join(
        weather,
        on=("origin", "time_hour"),
        how="left",
        columns=["temp", "wind_speed", "precip", "visib"],
        prefix="weather_",
    )
    .to("flights-enriched")
)
