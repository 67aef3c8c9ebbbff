"""The demo's processors by several workers that die, freeze and lose answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from processors import delay_alerts, delays_hourly, flights_enriched
from streampipe import Processor
from streampipe.testing import Input, Simulation, simulate
from tests.processors.flights import NOON, cancelled, flight
from tests.proof import PROVING

ORIGINS = ("JFK", "LGA", "EWR")
FLIGHTS = [Input("flights", flight(dep_delay=10 * n, flight=n, origin=ORIGINS[n % 3]), NOON) for n in range(12)]
LATER = NOON + timedelta(hours=2)
HOURS = [
    *FLIGHTS,
    *(Input("flights", cancelled(flight=20 + n, origin=ORIGINS[n], time_hour=LATER), LATER) for n in range(3)),
    Input("flights", flight(flight=30, dep_delay=9, time_hour=LATER + timedelta(days=2)), LATER),
]
AIRPORT = {"faa": "BOS", "name": "Logan", "lat": 42.4, "lon": -71.0, "alt": 19, "tz": -5, "dst": "A"}
PLANE = {
    "tailnum": "N1", "manufacturer": "AIRBUS", "type": "wings", "model": "A320", "engines": 2, "seats": 182,
    "engine": "fan",
}  # fmt: skip
TABLES = [
    Input("airlines", {"carrier": "B6", "name": "JetBlue"}, NOON),
    Input("airports", AIRPORT, NOON),
    Input("planes", PLANE, NOON),
    *(
        Input(
            "weather",
            {"origin": origin, "time_hour": NOON, "temp": 30.0 + n, "year": 2013, "month": 1, "day": 5, "hour": 7},
            NOON,
        )
        for n, origin in enumerate(ORIGINS)
    ),
]


def never_changed(
    processor: Processor, inputs: Sequence[Input], output: str, before: Sequence[Input] = ()
) -> Simulation:
    """The run without faults, after ten with faults gave the same."""
    calm = simulate(processor, inputs, before=before, faults=0)
    for seed in range(10 if PROVING else 5):
        run = simulate(processor, inputs, before=before, seed=seed)
        assert run.by_key(output) == calm.by_key(output), (seed, run.faults)
        assert run.dead_letters == calm.dead_letters == []
    return calm


def test_every_late_flight_is_told_exactly_once_whatever_happens() -> None:
    calm = never_changed(delay_alerts.processor, FLIGHTS, "delay-alerts")
    assert sorted(alert["flight"] for alert in calm.events("delay-alerts") if alert) == [7, 8, 9, 10, 11]


def test_every_flight_is_enriched_exactly_once_whatever_happens() -> None:
    calm = never_changed(flights_enriched.processor, FLIGHTS, "flights-enriched", before=TABLES)
    told = [event for event in calm.events("flights-enriched") if event]
    assert sorted(event["flight"] for event in told) == list(range(12))
    columns = ("airline_name", "dest_name", "plane_manufacturer", "weather_temp")
    assert {tuple(event[name] for name in columns) for event in told} == {
        ("JetBlue", "Logan", "AIRBUS", 30.0 + n) for n in range(3)
    }


def test_every_hour_is_told_exactly_once_whatever_happens() -> None:
    calm = never_changed(delays_hourly.processor, HOURS, "delays-hourly")

    def hours(key: bytes) -> list[Any]:
        names = ("window_start", "flights", "cancelled", "mean_delay", "max_delay")
        return [tuple(hour[name] for name in names) for hour in calm.by_key("delays-hourly")[key] if hour]

    assert hours(b"JFK") == [
        (NOON, 4, 0, 45.0, 90), (LATER, 1, 1, None, None), (LATER + timedelta(days=2), 1, 0, 9.0, 9)
    ]  # fmt: skip
    assert hours(b"LGA") == [(NOON, 4, 0, 55.0, 100), (LATER, 1, 1, None, None)]
    assert hours(b"EWR") == [(NOON, 4, 0, 65.0, 110), (LATER, 1, 1, None, None)]
