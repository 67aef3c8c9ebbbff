"""What windows do with late records, silence, impossible times and state of another shape; and what they refuse."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from streampipe import Hopping, Processor, Session, Sliding, Stream, Tumbling, Update, agg
from streampipe.errors import StateCorrupted, TopologyError
from streampipe.operators.slots import Table
from streampipe.operators.windows.aligned import AlignedStep
from streampipe.topology.describe import describe
from streampipe.windows import Window
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import SCHEMAS

KINDS: list[Window] = [Tumbling(50), Hopping(50, advance=20), Sliding(50), Session(50)]
kinds = pytest.mark.parametrize("window", KINDS, ids=lambda w: type(w).__name__.lower())


def event(key: str, time: int, x: int | None = 1, partition: int = 0) -> Event:
    return Event("in", key, {"k": key, "x": x, "y": None}, time, partition)


def driver(folder: Path, window: Window, source: dict[str, Any] | None = None, **options: Any) -> Driver:
    p = Processor("p")
    stream = p.source("in", key="k", **(source or {})).window(window, **options)
    stream.agg(n=agg.count(), times=agg.collect("x")).to("out")
    return Driver(p, SCHEMAS, folder)


def told(driver: Driver) -> list[tuple[int, int, list[int] | None]]:
    """Start, end and values of what was told since the last call; no values: taken back."""
    events = [e for _, e, _ in driver.result.records.pop("out", [])]
    return [(ms(e["window_start"]), ms(e["window_end"]), e["times"]) for e in events]


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


# --- late -------------------------------------------------------------------------------------------------------


def test_a_record_counts_in_those_of_its_windows_that_are_open_and_is_late_when_all_are_closed(tmp_path: Path) -> None:
    hopping = driver(tmp_path, Hopping(60, advance=20))
    hopping.feed([event("a", 110, 0), event("a", 100, 1), event("a", 79, 2), event("a", 49, 3)])
    [(_, _, late)] = hopping.result.dead
    assert late["window"] == "[1970-01-01T00:00:00.040Z, 1970-01-01T00:00:00.100Z)"
    hopping.finish(close_windows=True)
    assert told(hopping) == [(60, 120, [0, 1, 2]), (80, 140, [0, 1]), (100, 160, [0, 1])]


@pytest.mark.parametrize(
    ("window", "first", "corrected"),
    [
        (Tumbling(50), (0, 50, [1]), [(0, 50, [1, 2])]),
        (Hopping(50, advance=50), (0, 50, [1]), [(0, 50, [1, 2])]),
        (Sliding(50), (-40, 10, [1]), [(-35, 15, [1, 2]), (11, 61, [2])]),
        (Session(50), (10, 10, [1]), [(10, 10, None), (10, 15, [1, 2])]),
    ],
    ids=lambda w: type(w).__name__.lower() if not isinstance(w, tuple | list) else "",
)
def test_a_late_record_corrects_a_closed_window_at_the_next_commit_until_the_retention_is_over(
    tmp_path: Path, window: Window, first: Any, corrected: Any
) -> None:
    updated = driver(tmp_path, window, late=Update(1_000))
    updated.feed([event("a", 10, 1), event("b", 500, 0)])
    assert told(updated) == [first]
    updated.feed([event("a", 15, 2)])
    assert told(updated) == []
    updated.finish()
    assert told(updated) == corrected
    updated.finish()
    assert told(updated) == []
    updated.feed([event("b", 5_000, 0)]).finish()
    told(updated)
    updated.feed([event("a", 16, 3)]).finish()
    assert told(updated) == []
    assert [dead["class"] for _, _, dead in updated.result.dead] == ["late"]


@kinds
def test_late_records_are_dropped_and_counted_by_choice(tmp_path: Path, window: Window) -> None:
    dropping = driver(tmp_path, window, late="drop")
    dropping.feed([event("a", 1_000), event("a", 10), event("b", 11)]).feed([event("a", 12)])
    assert not dropping.result.dead
    assert dropping.result.outcomes == {"ok": 1, "dropped": 3, "filtered": 0, "dlq": 0}
    assert dropping.result.late_drops == {"window-1": 3}


def test_a_merged_session_is_taken_back_before_the_one_that_it_became_part_of(tmp_path: Path) -> None:
    sessions = driver(tmp_path, Session(10), emit="updates")
    sessions.feed([event("a", 100, 1), event("a", 120, 2)]).finish()
    assert told(sessions) == [(100, 100, [1]), (120, 120, [2])]
    sessions.feed([event("a", 110, 3)]).finish()
    assert told(sessions) == [(100, 100, None), (120, 120, None), (100, 120, [1, 2, 3])]
    sessions.feed([event("a", 115, 4)]).finish()
    assert told(sessions) == [(100, 120, [1, 2, 3, 4])]
    assert len([k for log in sessions.result.changelog.values() for k in log if k]) == 1


def test_only_sessions_that_may_be_taken_back_have_a_column_for_it(tmp_path: Path) -> None:
    final, updates = Processor("final"), Processor("updates")
    for p, emit in ((final, "final"), (updates, "updates")):
        p.source("in", key="k").window(Session(5), emit=emit).agg(n=agg.count()).to(f"{emit}-out")  # type: ignore[arg-type]
        made = Driver(p, SCHEMAS, tmp_path)
        made.feed([event("a", 10), event("a", 900)]).finish()
        [first, *_] = made.result.records[f"{emit}-out"]
        assert ("retracted" in first[1]) == (emit == "updates")


# --- silence ----------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize(
    ("options", "after_s"),
    [
        ({}, 30),
        ({"idle_after": "5s"}, 5),
        ({"idle_after": "never"}, None),
        ({"emit": "updates"}, None),
        ({"emit": "updates", "idle_after": "1m"}, 60),
    ],
)
def test_windows_follow_the_clock_after_the_silence_that_they_ask_for(
    tmp_path: Path, window: Window, options: Any, after_s: float | None
) -> None:
    quiet = driver(tmp_path, window, **options)
    assert quiet.task.idle_after_s == (after_s or math.inf)
    quiet.feed([event("a", 10)]).finish()
    told(quiet)
    quiet.task.advance(10_000, {0: (after_s or 1e9) - 0.5})
    quiet.feed([event("a", 11)]).finish()
    assert not quiet.result.dead
    told(quiet)
    quiet.task.advance(10_000, {0: after_s or 1e9})
    quiet.finish()
    assert bool(told(quiet)) == (after_s is not None and options.get("emit") != "updates")
    quiet.feed([event("a", 12)])
    assert len(quiet.result.dead) == (after_s is not None)


@kinds
def test_silence_moves_no_time_where_nothing_waits_for_it(tmp_path: Path, window: Window) -> None:
    quiet = driver(tmp_path, window)
    quiet.task.advance(10_000, {0: 60, 1: 60})
    quiet.feed([event("a", 10)]).finish()
    assert not quiet.result.dead
    quiet.task.advance(10_000, {1: 60})
    quiet.feed([event("a", 20)]).finish(close_windows=True)
    assert not quiet.result.dead


# --- impossible times -------------------------------------------------------------------------------------------


@kinds
def test_a_record_from_the_future_moves_no_time_and_is_a_dead_letter(tmp_path: Path, window: Window) -> None:
    bounded = driver(tmp_path, window, {"max_ahead": "1s"})
    bounded.feed([event("a", 900, 1), event("a", 2_001, 2), event("a", 901, 3)], now_ms=1_000)
    bounded.finish(close_windows=True)
    [(_, _, dead)] = bounded.result.dead
    assert (dead["class"], dead["rule"], dead["offset"], dead["stage"]) == ("validation", "max_ahead", "1", "in")
    assert all(2 not in values for *_, values in told(bounded) if values)
    assert bounded.result.outcomes["ok"] == 2


def test_a_replay_knows_no_clock_and_no_future(tmp_path: Path) -> None:
    replayed = driver(tmp_path, Tumbling(50), {"max_ahead": "1s"})
    replayed.feed([event("a", 10**13)], now_ms=None)
    assert replayed.result.outcomes["ok"] == 1


def test_times_that_cannot_be_used_are_dropped_and_counted_by_choice(tmp_path: Path) -> None:
    choosy = driver(tmp_path, Tumbling(50), {"max_ahead": "1s", "invalid_timestamp": "drop"})
    choosy.feed([event("a", -1), event("a", 9_999), event("a", 10)], now_ms=1_000)
    assert choosy.result.invalid_drops == {"in": 2}
    assert choosy.result.outcomes == {"ok": 1, "dropped": 2, "filtered": 0, "dlq": 0}
    assert not choosy.result.dead


def test_negative_timestamps_are_dead_letters_of_the_source_that_says_so(tmp_path: Path) -> None:
    p = Processor("strict")
    p.source("in", invalid_timestamp="dead_letter").to("out")
    strict = Driver(p, SCHEMAS, tmp_path).feed([event("a", -1), event("a", 5)])
    assert [(d["rule"], d["stage"]) for _, _, d in strict.result.dead] == [("timestamp", "in")]
    assert len(strict.result.records["out"]) == 1


@kinds
def test_a_time_beyond_all_calendars_is_a_dead_letter(tmp_path: Path, window: Window) -> None:
    far = driver(tmp_path, window).feed([event("a", 2**62), event("a", 10)])
    assert [d["rule"] for _, _, d in far.result.dead] == ["timestamp"]
    assert far.result.outcomes["ok"] == 1


# --- state ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Tumbling(50), Tumbling(60)),
        (Tumbling(50), Tumbling(50, offset=10)),
        (Tumbling(50), Hopping(50, advance=50)),
        (Tumbling("1d"), Tumbling("1d", zone="Europe/Berlin")),
        (Tumbling("1d", zone="Europe/Berlin"), Tumbling("1d", zone="Europe/Paris")),
        (Hopping(50, advance=10), Hopping(50, advance=5)),
        (Sliding(50), Sliding(51)),
        (Session(50), Session(51)),
        (Session(50), Sliding(50)),
    ],
    ids=str,
)
def test_state_of_another_window_is_refused(tmp_path: Path, old: Window, new: Window) -> None:
    before = driver(tmp_path, old)
    before.feed([event("a", 10)]).finish()
    after = driver(tmp_path, new)
    after.result = before.result
    after.start()
    with pytest.raises(StateCorrupted, match="another shape"):
        after.feed([event("a", 11)])


@kinds
def test_another_grace_takes_the_state_over(tmp_path: Path, window: Window) -> None:
    before = driver(tmp_path, _with_grace(window, 500))
    before.feed([event("a", 10, 1), event("a", 400, 2)]).finish()
    assert told(before) == []
    after = driver(tmp_path, window)
    after.result = before.result
    after.start()
    after.feed([event("a", 401, 3)]).finish()
    assert [values for *_, values in told(after)][:1] == [[1]]


def _with_grace(window: Window, grace: int) -> Window:
    match window:
        case Tumbling():
            return Tumbling(window.size, grace=grace)
        case Hopping():
            return Hopping(window.size, advance=window.advance, grace=grace)
        case Sliding():
            return Sliding(window.difference, grace=grace)
        case Session():
            return Session(window.gap, grace=grace)


@kinds
def test_windows_that_are_over_leave_no_state_behind(tmp_path: Path, window: Window) -> None:
    over = driver(tmp_path, window)
    over.feed([event("a", 10), event("a", 20), event("b", 30)]).finish()
    assert any(key for log in over.result.changelog.values() for key in log)
    over.feed([event("c", 10**6)]).finish()
    left = [key for log in over.result.changelog.values() for key in log if key]
    assert all(key.startswith(b'["c"') for key in left)


def test_closing_looks_at_what_closes_and_at_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[int] = []
    close = AlignedStep._close

    def counting(step: AlignedStep, at: Any) -> None:
        closed.append(len(at))
        close(step, at)

    def scan(*_: Any) -> Any:
        raise AssertionError("every slot is looked at")

    monkeypatch.setattr(AlignedStep, "_close", counting)
    monkeypatch.setattr(Table, "of", scan)
    many = driver(tmp_path, Tumbling(10, grace=1_000))
    for time in range(0, 3_000, 5):
        many.feed([event(key, time) for key in "abc"])
    assert sum(closed) == 3 * len({time // 10 for time in range(0, 3_000, 5) if (time // 10 + 1) * 10 + 1_000 <= 2_995})


# --- calendars --------------------------------------------------------------------------------------------------


def test_days_are_those_of_the_zone_and_close_when_they_end(tmp_path: Path) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    starts = [ms(datetime(2013, 3, day, tzinfo=berlin)) for day in (30, 31)] + [ms(datetime(2013, 4, 1, tzinfo=berlin))]
    days = driver(tmp_path, Tumbling("1d", zone="Europe/Berlin"))
    hour = 3_600_000
    days.feed([event("a", starts[1] + h * hour, h) for h in range(23)])
    assert told(days) == []
    days.feed([event("a", starts[2] - 1, 23), event("a", starts[1] - 1, 24)])
    assert told(days) == []
    assert len(days.result.dead) == 1
    days.feed([event("b", starts[2], 0)])
    assert told(days) == [(starts[1], starts[2], [*range(24)])]
    assert starts[2] - starts[1] == 23 * hour


# --- what is refused, and what is said about the rest ------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tumbling(0), "size must be > 0"),
        (lambda: Tumbling(5, offset=5), "offset < size"),
        (lambda: Hopping(5, advance=6), "0 < advance <= size"),
        (lambda: Hopping(5, advance=0), "0 < advance <= size"),
        (lambda: Hopping("1d", advance="1s"), "larger advance"),
        (lambda: Tumbling("1d", zone="Europe/Atlantis"), "none of the IANA time zones"),
        (lambda: Tumbling("1h", zone="Europe/Berlin"), "whole days"),
        (lambda: Hopping("2d", advance="12h", zone="Europe/Berlin"), "whole days"),
        (lambda: Sliding(-1), "must be >= 0"),
        (lambda: Session(0), "gap must be > 0"),
        (lambda: Update(0), "retention must be > 0"),
    ],
)
def test_a_window_that_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: s.window(Tumbling(5)).agg(k=agg.count()), "cannot be named 'k'"),
        (lambda s: s.window(Tumbling(5)).agg(window_end=agg.count()), "cannot be named 'window_end'"),
        (lambda s: s.window(Session(5), emit="updates").agg(retracted=agg.count()), "cannot be named 'retracted'"),
        (lambda s: s.window(Session(5)).agg(s=agg.aggregate(0, max, "x")), "needs merge="),
        (lambda s: s.window(Sliding(5)).agg(s=agg.aggregate(0, max, "x")), "needs merge="),
    ],
)
def test_an_aggregate_that_cannot_be_is_refused_at_start(tmp_path: Path, make: Any, message: str) -> None:
    p = Processor("bad")
    make(p.source("in", key="k")).to("out")
    with pytest.raises(TopologyError, match=message):
        Driver(p, SCHEMAS, tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.source("in", key="k").window(Tumbling(5), idle_after="-"), "is not like"),
        (lambda p: p.source("in", key="k").window(Tumbling(5), idle_after=-1), "'never'"),
        (lambda p: p.source("in", key="k").window(Tumbling(5), late="update"), "use one of 'dead_letter', 'drop'"),
        (lambda p: p.source("in", invalid_timestamp="keep"), "use one of 'dead_letter', 'drop'"),
        (lambda p: p.source("in", max_ahead=-1), "must not be negative"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises((TopologyError, ValueError), match=message):
        make(Processor("bad"))


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda s: s.window(Tumbling("1d", grace="1h", zone="Europe/Berlin", offset="6h")).agg(n=agg.count()),
         "tumbling 1d zone Europe/Berlin offset 6h grace 1h, emit final, late dead_letter: n=count"),
        (lambda s: s.window(Hopping("1h", advance="5m"), idle_after="never").agg(n=agg.count()),
         "hopping 1h advance 5m grace 0, emit final, late dead_letter, idle after never: n=count"),
        (lambda s: s.window(Sliding("5m"), emit="updates", idle_after="90s").agg(n=agg.count()),
         "sliding 5m grace 0, emit updates, late dead_letter, idle after 90s: n=count"),
        (lambda s: s.window(Session("30m", grace="1m"), late=Update("1d")).agg(n=agg.count()),
         "session gap 30m grace 1m, emit final, late update for 1d: n=count"),
        (lambda s: s.agg(n=agg.count()), "running n=count"),
    ],
    ids=["tumbling", "hopping", "sliding", "session", "running"],
)  # fmt: skip
def test_a_description_says_what_windows_there_are(make: Any, line: str) -> None:
    p = Processor("described")
    stream: Stream = p.source("in", key="k", max_ahead="1d")
    make(stream).to("out")
    assert line in describe(p.topology)
    assert "topic in at most 86400s ahead" in describe(p.topology)
