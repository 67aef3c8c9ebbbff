"""What came out: read back from the topics through the command line, and checked to add up."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import polars as pl

from demo.broken import PROCESSORS, expected_dead_letters
from demo.dataset import read
from demo.place import Place
from demo.workers import Finished

OUTCOMES = ("ok", "filtered", "dlq", "dropped")


@dataclass(frozen=True, slots=True)
class Results:
    """Everything the report shows. Fates by processor, input topic and outcome; lag in records and seconds."""

    loaded: int
    seconds: float
    fates: dict[str, dict[str, dict[str, int]]]
    figures: dict[str, dict[str, float | None]]
    lag: dict[str, dict[str, float | None]]
    dead_letters: dict[str, Counter[str]]
    hourly: pl.DataFrame
    enriched: pl.DataFrame
    alerts: pl.DataFrame


def collect(place: Place, loaded: int, finished: Finished) -> Results:
    """Read the outputs, the dead letters and the lag of each processor."""
    return Results(
        loaded=loaded,
        seconds=finished.seconds,
        fates={name: finished.summaries[name]["topics"] for name in PROCESSORS},
        figures={name: figures(finished.summaries[name]) for name in PROCESSORS},
        lag={name: lag(place, name) for name in PROCESSORS},
        dead_letters={name: dead_letters(place, name) for name in PROCESSORS},
        hourly=values(place, "delays-hourly"),
        enriched=values(place, "flights-enriched"),
        alerts=values(place, "delay-alerts"),
    )


def values(place: Place, topic: str) -> pl.DataFrame:
    """The decoded values of a topic."""
    lines = place.streampipe("consume", topic, "--json")
    return pl.read_ndjson(io.StringIO(lines), infer_schema_length=None).unnest("value")


def dead_letters(place: Place, processor: str) -> Counter[str]:
    """Dead letters of a processor by failure class."""
    letters: list[dict[str, Any]] = json.loads(place.streampipe("dlq", "list", processor, "--max", "1000", "--json"))
    return Counter(letter["class"] for letter in letters)


def lag(place: Place, processor: str) -> dict[str, float | None]:
    """Lag of a processor's group, as anybody sees it after the workers are gone."""
    found = json.loads(place.streampipe("lag", processor, "--json"))
    return {"records": found["records"], "seconds": found["seconds"]}


def figures(summary: dict[str, Any]) -> dict[str, float | None]:
    """Throughput and P95 latency from a worker's summary."""
    return {"records_per_second": summary["records_per_s"], "p95_s": summary["latency_p95_s"]}


def mistakes(results: Results) -> list[str]:
    """One line for each number that does not add up; none when all is well."""
    wrong = []
    expected = expected_dead_letters()
    injected = results.loaded - read("flights").height
    for name in PROCESSORS:
        for topic, fates in results.fates[name].items():
            if topic == "flights" and sum(fates.values()) != results.loaded:
                wrong.append(f"{name}: {sum(fates.values()):,} fates for {results.loaded:,} records of flights")
        if results.dead_letters[name] != expected[name]:
            wrong.append(f"{name}: dead letters {dict(results.dead_letters[name])}, expected {dict(expected[name])}")
        if results.lag[name]["records"] != 0:
            wrong.append(f"{name}: {results.lag[name]['records']} records behind after it caught up")
    in_windows = int(results.hourly["flights"].sum())
    if in_windows != results.loaded - injected:
        wrong.append(f"delays-hourly: {in_windows:,} flights in windows, {results.loaded - injected:,} are on time")
    if results.enriched.height != results.fates["flights-enriched"]["flights"]["ok"]:
        wrong.append(f"flights-enriched: {results.enriched.height:,} records out, fewer or more than it says are ok")
    no_weather = read("flights").join(read("weather"), on=["origin", "time_hour"], how="anti").height
    if results.enriched["weather_visib"].null_count() != no_weather or results.enriched["airline_name"].null_count():
        wrong.append(f"flights-enriched: all but {no_weather} flights have weather in the data, and all an airline")
    if results.alerts.height != results.fates["delay-alerts"]["flights"]["ok"]:
        wrong.append(f"delay-alerts: {results.alerts.height:,} records out, fewer or more than it says are ok")
    return wrong
