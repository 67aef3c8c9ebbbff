from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from processors.flights_enriched import processor
from streampipe.testing import TopologyTestDriver
from tests.processors.flights import NOON, flight

WEATHER = {"year": 2013, "month": 1, "day": 5, "hour": 7}


@pytest.fixture
def driver() -> Iterator[TopologyTestDriver]:
    with TopologyTestDriver(processor, partitions=3) as driver:
        driver.send("airlines", {"carrier": "B6", "name": "JetBlue"})
        driver.send("weather", {"origin": "JFK", "time_hour": NOON, "temp": 39.0, **WEATHER})
        yield driver


def enriched(driver: TopologyTestDriver, **fields: Any) -> dict[str, Any]:
    driver.send("flights", flight(**fields))
    [event] = driver.events("flights-enriched")
    assert event is not None
    return event


def test_a_flight_gets_its_airline_and_the_weather_of_its_hour(driver: TopologyTestDriver) -> None:
    event = enriched(driver)
    assert (event["airline_name"], event["weather_temp"]) == ("JetBlue", 39.0)


@pytest.mark.parametrize("fields", [{"time_hour": NOON + timedelta(hours=1)}, {"origin": "LGA"}])
def test_the_weather_of_another_hour_or_airport_is_not_taken(
    driver: TopologyTestDriver, fields: dict[str, Any]
) -> None:
    assert enriched(driver, **fields)["weather_temp"] is None


def test_what_nobody_knows_of_a_flight_is_null_and_no_dead_letter(driver: TopologyTestDriver) -> None:
    event = enriched(driver, carrier="XX", tailnum=None, dest="SJU")
    assert (event["airline_name"], event["plane_year"], event["dest_name"]) == (None, None, None)
    assert driver.dead_letters() == []


def test_a_newer_observation_replaces_the_older_one_also_after_a_crash(driver: TopologyTestDriver) -> None:
    driver.send("weather", {"origin": "JFK", "time_hour": NOON, "temp": 41.0, **WEATHER})
    driver.restart()
    assert enriched(driver)["weather_temp"] == 41.0
