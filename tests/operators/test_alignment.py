"""Where windows begin and end, in UTC and by the clocks of a zone."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe import Hopping, Tumbling, agg
from streampipe.operators.windows.alignment import alignment
from tests.operators.support import driver, rows
from tests.operators.window_oracle import local, places
from tests.proof import EXAMPLES

HOUR, DAY = 3_600_000, 86_400_000
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana",
    "Africa/Casablanca", "Pacific/Apia", "America/St_Johns", "Asia/Kathmandu", "Pacific/Kwajalein",
]  # fmt: skip
LEFT_OUT = {"Pacific/Apia": 15_338, "Pacific/Kwajalein": 8_633}
"""Days that a zone has none of, when it went to the other side of the date line: 2011-12-30 and 1993-08-21."""
moments = (
    st.integers(0, 10 * HOUR)
    | st.integers(0, 4 * 10**12)
    | st.sampled_from(range(1_364_600_000_000, 1_364_800_000_000, HOUR // 2))
    | st.builds(
        lambda day, hours: day * DAY + hours * HOUR, st.sampled_from([*LEFT_OUT.values()]), st.integers(-60, 60)
    )
)
windows = st.one_of(
    st.builds(
        lambda size, part: Tumbling(size, offset=part % size),
        st.integers(1, 3 * HOUR), st.sampled_from([0, 1, 25 * 60_000]),
    ),
    st.builds(
        lambda advance, more, part: Hopping(advance * more + 7, advance=advance, offset=part % advance),
        st.integers(HOUR, 3 * HOUR), st.integers(1, 5), st.sampled_from([0, 1]),
    ),
    st.builds(
        lambda days, zone, hours: Tumbling(days * DAY, zone=zone, offset=hours * HOUR),
        st.integers(1, 8), st.sampled_from(ZONES), st.integers(0, 23),
    ),
    st.builds(
        lambda days, more, zone: Hopping((days + more) * DAY, advance=days * DAY, zone=zone),
        st.integers(1, 3), st.integers(0, 8), st.sampled_from(ZONES),
    ),
)  # fmt: skip


def found(window: Any, times: list[int]) -> list[list[tuple[int, int]]]:
    """The windows of each time, by its alignment."""
    aligned, at = alignment(window), np.array(times)
    out: list[list[tuple[int, int]]] = [[] for _ in times]
    for back in reversed(range(aligned.depth)):
        numbers = aligned.latest(at) - back
        rows = zip(
            times, numbers.tolist(), aligned.starts(numbers).tolist(), aligned.ends(numbers).tolist(), strict=True
        )
        for row, (time, number, start, end) in enumerate(rows):
            if time < end and number >= aligned.first:
                out[row].append((start, end))
    return out


@pytest.mark.proof
@given(window=windows, times=st.lists(moments, min_size=1, max_size=8))
@settings(max_examples=EXAMPLES)
def test_the_windows_of_a_time_are_those_of_the_definition(window: Any, times: list[int]) -> None:
    assert found(window, times) == [list(places(window, time)) for time in times]


@pytest.mark.proof
@given(window=windows, times=st.lists(moments, min_size=1, max_size=8))
@settings(max_examples=EXAMPLES)
def test_a_start_says_which_window_it_is(window: Any, times: list[int]) -> None:
    aligned = alignment(window)
    numbers = aligned.latest(np.array(times))
    assert (aligned.latest(aligned.starts(numbers)) == numbers).all()
    if isinstance(window, Tumbling):
        assert (aligned.ends(numbers) == aligned.starts(numbers + 1)).all()


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2013-03-31", 23),
        ("Europe/Berlin", "2013-10-27", 25),
        ("Europe/Berlin", "2013-10-28", 24),
        ("America/New_York", "2013-11-03", 25),
        ("Asia/Kolkata", "2013-03-31", 24),
        ("Australia/Lord_Howe", "2013-04-07", 24.5),
        ("America/Havana", "2013-11-03", 25),  # its clocks go back over midnight, which therefore comes twice
    ],
)
def test_days_of_a_zone_are_as_long_as_its_clocks_say(zone: str, day: str, hours: float) -> None:
    number = (datetime.fromisoformat(day) - datetime(1970, 1, 1)).days  # noqa: DTZ001 - days of a calendar
    start = local(zone, number, 0)
    assert found(Tumbling("1d", zone=zone), [start]) == [[(start, start + round(hours * HOUR))]]
    assert found(Tumbling("1d", zone=zone), [start - 1])[0][0][1] == start


def test_a_day_that_a_zone_left_out_has_no_time_in_it() -> None:
    # Samoa went from the 29th to the 31st of December 2011
    thirty_first = local("Pacific/Apia", 15_339, 0)
    windows = found(Tumbling("1d", zone="Pacific/Apia"), [thirty_first - 1, thirty_first])
    assert windows == [[(thirty_first - DAY, thirty_first)], [(thirty_first, thirty_first + DAY)]]


@pytest.mark.parametrize(("zone", "day"), LEFT_OUT.items())
@pytest.mark.parametrize("offset", [0, 6 * HOUR])
def test_no_window_begins_on_a_day_that_a_zone_left_out(zone: str, day: int, offset: int) -> None:
    before, after, end = (local(zone, day + n, offset) for n in (-1, 1, 3))
    windows = found(Hopping("2d", advance="1d", zone=zone, offset=offset), [after - 1, after])
    assert windows == [[(before - DAY, after), (before, after)], [(after, end)]]


@pytest.mark.parametrize("emit", ["final", "updates"])
def test_a_restart_on_the_day_after_one_left_out_changes_no_window(emit: Any) -> None:
    def run(*, restarts: bool) -> list[tuple[datetime, int]]:
        window = Hopping("2d", advance="1d", zone="Pacific/Apia", grace="1d")
        made = driver(lambda s: s.window(window, emit=emit).agg(n=agg.count()).to("out"), key="k")
        for event in rows(*range(60)):
            made.feed([event._replace(timestamp=(15_336 * 24 + 2 * event.timestamp) * HOUR)]).finish()
            if restarts:
                made.start()
        told = made.finish(close_windows=True).records["out"]
        return [(event["window_start"], event["n"]) for _, event, _ in told]

    ran = run(restarts=False)
    assert sorted(run(restarts=True)) == sorted(ran)
    last = dict(ran)  # local days begin at 10:00 UTC, before and after
    assert [last[at] for at in sorted(last)] == [5, 17, 24, 12, 24, 19, 7]


def test_weeks_can_begin_on_mondays() -> None:
    monday = local("Europe/Berlin", 15_705, 0)  # 2012-12-31
    assert found(Tumbling("1w", zone="Europe/Berlin", offset="4d"), [monday, monday - 1])[0] == [
        (monday, monday + 7 * DAY)
    ]


def test_times_beyond_pythons_calendar_have_windows() -> None:
    far = 2**60
    [[(start, end)]] = found(Tumbling("1d", zone="Europe/Berlin"), [far])
    assert start <= far < end == start + DAY
