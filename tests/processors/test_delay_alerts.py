from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from processors.delay_alerts import processor
from streampipe.testing import TopologyTestDriver
from tests.processors.flights import cancelled, flight


@pytest.fixture
def driver() -> Iterator[TopologyTestDriver]:
    with TopologyTestDriver(processor) as driver:
        yield driver


@pytest.mark.parametrize(
    ("delay", "severity"), [(60, None), (61, "LATE"), (179, "LATE"), (180, "VERY_LATE"), (2880, "VERY_LATE")]
)
def test_how_late_a_flight_is_says_how_severe_the_alert_is(
    driver: TopologyTestDriver, delay: int, severity: str | None
) -> None:
    driver.send("flights", flight(dep_delay=delay, arr_delay=delay - 7))
    alerts = driver.events("delay-alerts")
    assert [(a["severity"], a["made_up_minutes"]) for a in alerts if a] == ([(severity, 7)] if severity else [])


def test_a_diverted_flight_made_nothing_up(driver: TopologyTestDriver) -> None:
    driver.send("flights", flight(dep_delay=90, arr_delay=None))
    assert [a["made_up_minutes"] for a in driver.events("delay-alerts") if a] == [None]


def test_a_cancelled_flight_is_no_alert_and_no_dead_letter(driver: TopologyTestDriver) -> None:
    driver.send("flights", cancelled())
    assert driver.events("delay-alerts") == []
    assert driver.dead_letters() == []


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"dep_delay": 2881}, "plausible_delay"),
        ({"distance": 0}, "positive_distance"),
        ({"dest": "JFK"}, "goes_somewhere"),
    ],
)
def test_a_flight_that_cannot_be_is_a_dead_letter_that_names_the_rule(
    driver: TopologyTestDriver, fields: dict[str, Any], rule: str
) -> None:
    driver.send("flights", flight(**fields), flight(dep_delay=61))
    [letter] = driver.dead_letters()
    assert letter.errors["class"] == "validation"
    assert rule in letter.errors["message"]
    assert len(driver.events("delay-alerts")) == 1
