"""The demo's processors by several workers that die, freeze and lose answers."""

from __future__ import annotations

import pytest

from processors import delay_alerts, flights_enriched
from streampipe import Processor
from streampipe.testing import Input, simulate
from tests.processors.flights import NOON, flight

FLIGHTS = [
    Input("flights", flight(dep_delay=10 * n, flight=n, origin=("JFK", "LGA", "EWR")[n % 3]), NOON) for n in range(12)
]


@pytest.mark.parametrize(
    ("processor", "output", "count"),
    [(delay_alerts.processor, "delay-alerts", 5), (flights_enriched.processor, "flights-enriched", 12)],
    ids=["delay-alerts", "flights-enriched"],
)
def test_every_flight_is_told_exactly_once_whatever_happens(processor: Processor, output: str, count: int) -> None:
    calm = simulate(processor, FLIGHTS, faults=0)
    assert len(calm.events(output)) == count
    for seed in range(10):
        run = simulate(processor, FLIGHTS, seed=seed)
        assert run.by_key(output) == calm.by_key(output), (seed, run.faults)
