"""The demo's processors over a slice of their topics as it was captured, a broken record included."""

from __future__ import annotations

from pathlib import Path

import pytest

from processors import delay_alerts, delays_hourly, flights_enriched
from streampipe import Processor
from streampipe.testing import TopologyTestDriver, assert_golden

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    ("processor", "output", "records"),
    [
        (flights_enriched.processor, "flights-enriched", 150),
        (delays_hourly.processor, "delays-hourly", 40),
        (delay_alerts.processor, "delay-alerts", 40),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_captured_slice_gives_what_it_gave(processor: Processor, output: str, records: int) -> None:
    with TopologyTestDriver(processor, partitions=2) as driver:
        assert driver.play(DATA / "january.jsonl.gz") == records
        driver.close_windows()
        assert_golden(DATA / f"{output}.jsonl", driver.read(output))
        assert [letter.value for letter in driver.dead_letters()][-1:] == [b"garbage"]
