"""Lengths of time at their end, 1,000 years: every operator that has one works with it, and refuses more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from streampipe import Hopping, Session, Sliding, Stream, Tumbling, Update, agg
from streampipe.errors import TopologyError
from streampipe.windows import Window
from tests.operators.support import column, driver, rows

LONGEST = timedelta(days=365_250)
WINDOWS: list[Callable[[Any], Window]] = [
    lambda d: Tumbling("10ms", grace=d),
    lambda d: Hopping("20ms", advance="10ms", grace=d),
    lambda d: Sliding("10ms", grace=d),
    lambda d: Session("10ms", grace=d),
    Tumbling,
    lambda d: Tumbling(d, zone="Europe/Berlin", grace=d),
    lambda d: Hopping(d, advance=LONGEST - timedelta(days=9), zone="Europe/Berlin", grace=d),
    lambda d: Hopping(d, advance="366d", zone="Pacific/Apia", grace=d),
    Sliding,
    lambda d: Sliding(d, grace=d),
    Session,
    lambda d: Session(d, grace=d, retention=d),
]
OPERATORS: list[Callable[[Stream, Any], Stream]] = [
    lambda s, d: s.deduplicate(within=d),
    lambda s, d: s.window(Tumbling("10ms"), late=Update(d)).agg(n=agg.count()),
    lambda s, d: s.window(Tumbling("10ms"), idle_after=d).agg(n=agg.count()),
    lambda s, d: s.key_by("s").join(s.key_by("s"), on="s", within=d, grace=d, prefix="other_"),
]
TOO_LONG = [LONGEST + timedelta(milliseconds=1), "365251d", 2**61, 2**63 - 1, 2**64, timedelta.max]


@pytest.mark.parametrize("emit", ["final", "updates"])
@pytest.mark.parametrize("window", WINDOWS)
def test_windows_with_a_length_of_a_thousand_years_find_no_record_late(window: Any, emit: Any) -> None:
    made = driver(lambda s: s.window(window(LONGEST), emit=emit).agg(x=agg.max("x")).to("out"), key="k")
    events = [event._replace(timestamp=event.timestamp * 90) for event in rows(*range(20))]
    made.feed([*events, *events[3:6]], size=5).finish()
    made.start()
    result = made.feed(events[2:4]).finish(close_windows=True)
    assert not result.dead
    assert max(x for x in column(result, "x") if x is not None) == 19


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_take_lengths_of_a_thousand_years(operator: Any) -> None:
    made = driver(lambda s: operator(s, LONGEST).to("out"), key="k")
    result = made.feed(rows(1, 2, s="a")).finish(close_windows=True)
    assert result.records["out"]
    assert not result.dead


@pytest.mark.parametrize("duration", TOO_LONG)
@pytest.mark.parametrize("make", [*WINDOWS, Update])
def test_windows_refuse_lengths_of_more_than_a_thousand_years(make: Any, duration: Any) -> None:
    with pytest.raises(ValueError, match="longer than 1,000 years") as told:
        make(duration)
    assert repr(duration) in str(told.value)


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_refuse_lengths_of_more_than_a_thousand_years(operator: Any) -> None:
    with pytest.raises((TopologyError, ValueError), match="duration '365251d' is longer than 1,000 years"):
        driver(lambda s: operator(s, "365251d").to("out"), key="k")
