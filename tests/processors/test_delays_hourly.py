from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from processors.delays_hourly import processor
from streampipe.testing import TopologyTestDriver
from tests.processors.flights import NOON, cancelled, flight

OUT = "delays-hourly"


@pytest.fixture
def driver() -> Iterator[TopologyTestDriver]:
    with TopologyTestDriver(processor) as driver:
        yield driver


def test_an_hour_tells_its_flights_once_when_a_day_has_passed(driver: TopologyTestDriver) -> None:
    driver.send("flights", flight(dep_delay=10), flight(dep_delay=30), cancelled())
    driver.send("flights", flight(time_hour=NOON + timedelta(hours=24, minutes=59)))
    assert driver.events(OUT) == []
    driver.send("flights", flight(time_hour=NOON + timedelta(hours=25)))
    [hour] = driver.read(OUT)
    assert hour.key == b"JFK"
    assert hour.event is not None
    assert hour.event["window_start"] == NOON
    told = {name: hour.event[name] for name in ("flights", "cancelled", "mean_delay", "max_delay")}
    assert told == {"flights": 3, "cancelled": 1, "mean_delay": 20.0, "max_delay": 30}
    assert hour.event["p95_delay"] == pytest.approx(10, rel=0.01)  # the lower quantile of two values


def test_airports_have_hours_of_their_own(driver: TopologyTestDriver) -> None:
    driver.send("flights", flight(), flight(origin="LGA"), flight())
    driver.close_windows()
    assert {hour.key: hour.event["flights"] for hour in driver.read(OUT) if hour.event} == {b"JFK": 2, b"LGA": 1}


def test_a_flight_that_comes_a_day_late_is_a_dead_letter_that_names_its_window(driver: TopologyTestDriver) -> None:
    driver.send("flights", flight(time_hour=NOON + timedelta(hours=25)), flight())
    [letter] = driver.dead_letters()
    assert letter.errors["class"] == "late"
    assert letter.key == b"JFK"


def test_an_open_hour_survives_a_crash(driver: TopologyTestDriver) -> None:
    driver.send("flights", flight(dep_delay=10))
    driver.restart()
    driver.send("flights", flight(dep_delay=20))
    driver.close_windows()
    assert [hour["mean_delay"] for hour in driver.events(OUT) if hour] == [15.0]


def test_an_hour_is_told_after_a_day_of_silence_as_well() -> None:
    with TopologyTestDriver(processor, now=NOON) as driver:
        driver.send("flights", flight())
        driver.advance("24h")
        assert driver.events(OUT) == []
        driver.advance("1h")
        assert len(driver.events(OUT)) == 1
