"""Laws of all windows: what they are by definition, and that no cut, no order and no crash shows in a result."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections import defaultdict
from copy import deepcopy
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe import Hopping, Processor, Session, Sliding, Tumbling, Update, agg
from streampipe.windows import Window
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import avro
from tests.operators.window_oracle import At, Oracle, Row, missed, oracle
from tests.proof import EXAMPLES, patient

FOLDER = Path(tempfile.mkdtemp(prefix="streampipe-test-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
SCHEMAS = {"in": avro("In", k="string", i="int", y="double")}
TIME = 1_000

sizes = st.integers(1, 40)
graces = st.sampled_from([0, 1, 5, 20, 100])
aligned: st.SearchStrategy[Window] = st.one_of(
    st.builds(lambda size, grace, part: Tumbling(size, grace=grace, offset=part % size), sizes, graces, sizes),
    st.builds(
        lambda size, advance, grace, part: Hopping(
            size, advance=min(advance, size), grace=grace, offset=part % min(advance, size)
        ),
        sizes, sizes, graces, st.sampled_from([0, 0, 3]),
    ),
)  # fmt: skip
sliding: st.SearchStrategy[Window] = st.builds(lambda d, grace: Sliding(d, grace=grace), st.integers(0, 30), graces)
sessions: st.SearchStrategy[Window] = st.builds(
    lambda gap, grace, retention: Session(gap, grace=grace, retention=retention),
    st.integers(1, 30), graces, st.sampled_from([0, 50, 100_000]),
)  # fmt: skip
windows = {"aligned": aligned, "sliding": sliding, "sessions": sessions}
every = pytest.mark.parametrize("kind", windows)
retentions = st.sampled_from([0, 0, 1, 30])


@st.composite
def rows(draw: Any, keys: str = "ab", most: int = 24) -> list[Row]:
    """Records whose time goes on, now and then back, and sometimes far ahead."""
    now, made = TIME, []
    for number in range(draw(st.integers(1, most))):
        now += draw(st.sampled_from([0, 0, 1, 1, 2, 5, 9, 25, 120]))
        made.append((draw(st.sampled_from(keys)), number, now - draw(st.sampled_from([0, 0, 0, 1, 4, 11, 30, 90]))))
    return made


class Run:
    """A processor with one window, fed with rows; what was said last of each window, and how often."""

    def __init__(self, window: Window, *, final: bool = True, retention: int = 0, late: Any = None) -> None:
        p = Processor("p")
        emit = "final" if final else "updates"
        policy = late or (Update(retention) if retention else "dead_letter")
        stream = p.source("in", key="k").window(window, emit=emit, late=policy)  # type: ignore[arg-type]
        stream.agg(v=agg.collect("i"), n=agg.count(), y=agg.sum("y"), q=agg.quantile("i", 0.5)).to("out")
        retracting = isinstance(window, Session) and (not final or retention > 0)
        self.driver = Driver(p, SCHEMAS, FOLDER / f"{retracting}")
        self.said: dict[At, dict[str, Any]] = {}
        self.told: defaultdict[At, int] = defaultdict(int)
        self.order: defaultdict[str, list[At]] = defaultdict(list)

    def feed(self, rows: list[Row], size: int | None = None) -> Run:
        self.driver.feed((event(*row) for row in rows), size)
        return self._heard()

    def commit(self, *, close: bool = False) -> Run:
        self.driver.finish(close_windows=close)
        return self._heard()

    def crash(self, lost: list[Row] | None = None) -> Run:
        """Process these rows without a commit, forget all about it, and go on with the state of the last commit."""
        driver, said, told, order = self.driver, dict(self.said), self.told.copy(), deepcopy(self.order)
        result, offsets = deepcopy(driver.result), driver.offsets.copy()
        self.feed(lost or [])
        self.said, self.told, self.order, driver.result, driver.offsets = said, told, order, result, offsets
        driver.start()
        return self

    def _heard(self) -> Run:
        for key, e, time in self.driver.result.records.pop("out", []):
            start, end = (round(e.pop(bound).timestamp() * 1000) for bound in ("window_start", "window_end"))
            at = (e.pop("k"), start, end)
            assert key == at[0].encode()
            if e.pop("retracted", False):
                assert all(value is None for value in e.values())
                del self.said[at]  # nothing is taken back that was not said
                continue
            assert e["n"] == len(e["v"])
            self.said[at] = e | {"time": time}
            self.told[at] += 1
            self.order[at[0]].append(at)
        return self

    @property
    def lists(self) -> dict[At, list[int]]:
        return {at: e["v"] for at, e in self.said.items()}

    @property
    def late(self) -> list[int]:
        dead = self.driver.result.dead
        assert {told["class"] for _, _, told in dead} <= {"late"}
        return sorted(int(told["offset"]) for _, _, told in dead)


def event(key: str, number: int, time: int) -> Event:
    return Event("in", key, {"k": key, "i": number, "y": 0.1 * 3**number}, time)


def expected(window: Window, rows: list[Row], *, close: bool = True, **options: Any) -> Oracle:
    by_definition = oracle(window, **options)
    for row in rows:
        by_definition.take(row)
    if close:
        by_definition.close()
    return by_definition


@every
@pytest.mark.proof
@patient
@given(data=st.data())
@settings(max_examples=EXAMPLES // 10)
def test_final_results_are_those_of_the_definition(kind: str, data: st.DataObject) -> None:
    window, given_rows = data.draw(windows[kind]), data.draw(rows())
    run = Run(window).feed(given_rows, data.draw(st.sampled_from([1, 3, None])))
    want = expected(window, given_rows, close=False)
    assert run.lists == want.said  # as of now, before any commit
    run.commit(close=True)
    want.close()
    assert run.lists == want.said
    assert run.late == want.late
    assert set(run.told.values()) <= {1}
    times = {number: time for _, number, time in given_rows}
    for at, e in run.said.items():
        assert e["time"] == max(times[i] for i in e["v"])
        assert e["y"] == float_sum(e["v"]) or isinstance(window, Session | Sliding)
        # A record that is late for the window that ends with it leaves a gap there, and Kafka Streams makes the next
        # window out of the one before the gap, records before its own start included (KStreamSlidingWindowAggregate).
        assert at[1] <= min(times[i] for i in e["v"]) or (isinstance(window, Sliding) and overdue(window, given_rows))
    for told in run.order.values():
        assert told == sorted(told, key=lambda at: (at[2], at[1]))


def overdue(window: Window, rows: list[Row]) -> bool:
    """Whether a record came when a window that ends with it was closed."""
    times = [time for *_, time in rows]
    return any(time + window.grace_ms < now for time, now in zip(times, accumulate(times, max), strict=True))


def float_sum(numbers: list[int]) -> float:
    total = 0.0
    for number in numbers:
        total += 0.1 * 3**number
    return total


@every
@pytest.mark.proof
@patient
@given(data=st.data())
@settings(max_examples=EXAMPLES // 10)
def test_updates_end_at_what_the_definition_says(kind: str, data: st.DataObject) -> None:
    window, given_rows, retention = data.draw(windows[kind]), data.draw(rows()), data.draw(retentions)
    cuts = data.draw(st.lists(st.booleans(), min_size=len(given_rows), max_size=len(given_rows)))
    run, want = Run(window, final=False, retention=retention), oracle(window, final=False, retention=retention)
    for row, commit in zip(given_rows, cuts, strict=True):
        run.feed([row])
        want.take(row)
        if commit:
            run.commit()
            assert run.lists == want.said
    assert run.commit().lists == want.said
    assert run.late == want.late


@every
@pytest.mark.proof
@patient
@given(data=st.data())
@settings(max_examples=EXAMPLES // 10)
def test_late_records_correct_what_was_final_for_the_retention(kind: str, data: st.DataObject) -> None:
    window, given_rows = data.draw(windows[kind]), data.draw(rows())
    retention = data.draw(st.sampled_from([1, 10, 60]))
    run, want = Run(window, retention=retention), oracle(window, retention=retention)
    for row in given_rows:
        run.feed([row])
        want.take(row)
        if data.draw(st.booleans()):
            run.commit()
            assert run.lists == want.said
    assert run.commit().lists == want.said
    assert run.late == want.late


def _arrival(delayed: tuple[int, Row]) -> tuple[int, int]:
    """A record that comes so long after its time comes after others that are that much ahead of it at most."""
    delay, (_, number, time) = delayed
    return time + delay, number


@every
@pytest.mark.proof
@patient
@given(data=st.data())
@settings(max_examples=EXAMPLES // 10)
def test_no_order_within_the_grace_changes_a_final_result(kind: str, data: st.DataObject) -> None:
    window, given_rows = data.draw(windows[kind]), data.draw(rows())
    delays = st.lists(st.integers(0, window.grace_ms), min_size=len(given_rows), max_size=len(given_rows))
    first, second = (
        Run(window).feed([row for _, row in sorted(zip(by, given_rows, strict=True), key=_arrival)]).commit(close=True)
        for by in (data.draw(delays), data.draw(delays))
    )
    assert {at: sorted(numbers) for at, numbers in first.lists.items()} == {
        at: sorted(numbers) for at, numbers in second.lists.items()
    }
    assert first.late == second.late == []


@every
@pytest.mark.proof
@patient
@given(data=st.data())
@settings(max_examples=EXAMPLES // 10)
def test_no_crash_and_no_cut_changes_a_result(kind: str, data: st.DataObject) -> None:
    window, given_rows, retention = data.draw(windows[kind]), data.draw(rows()), data.draw(retentions)
    final = data.draw(st.booleans())
    run, whole = (Run(window, final=final, retention=retention) for _ in range(2))
    whole.feed(given_rows).commit(close=True)
    done = 0
    while done < len(given_rows):
        if data.draw(st.booleans()):
            run.crash(given_rows[done : done + data.draw(st.integers(0, 4))])
        n = data.draw(st.integers(1, len(given_rows) - done))
        run.feed(given_rows[done : done + n], data.draw(st.sampled_from([1, 2, None]))).commit()
        done += n
    run.commit(close=True)
    assert run.said == whole.said
    assert run.late == whole.late
    assert run.driver.result.outcomes == whole.driver.result.outcomes
    assert run.driver.result.changelog == whole.driver.result.changelog


@every
@pytest.mark.proof
@patient
@given(data=st.data())
@settings(max_examples=EXAMPLES // 10)
def test_a_look_at_state_shows_what_closing_the_windows_would_tell(kind: str, data: st.DataObject) -> None:
    window = data.draw(windows[kind])
    run = Run(window).feed(data.draw(rows())).commit()
    shown: dict[At, dict[str, Any]] = {}
    for frame in run.driver.start().look("window-1", 0):
        for e, time in zip(frame.arrow().to_pylist(), frame.timestamps.tolist(), strict=True):
            start, end = (round(e.pop(bound).timestamp() * 1000) for bound in ("window_start", "window_end"))
            at = (e.pop("k"), start, end)
            shown[at] = e | {"time": time}
    told = set(run.said)
    run.driver.start()
    run.commit(close=True)
    assert shown == {at: e for at, e in run.said.items() if at not in told}


@every
@pytest.mark.proof
@patient
@given(data=st.data())
@settings(max_examples=EXAMPLES // 10)
def test_a_late_dead_letter_names_the_last_window_that_its_record_missed(kind: str, data: st.DataObject) -> None:
    window, given_rows = data.draw(windows[kind]), data.draw(rows())
    overtaking = ("a", len(given_rows), max(time for *_, time in given_rows) + 500)
    given_rows = [overtaking, *given_rows]
    run = Run(window).feed(given_rows, data.draw(st.sampled_from([1, None])))
    named = [(told["stage"], told["window"]) for _, _, told in run.driver.result.dead]
    late = expected(window, given_rows, close=False).late
    assert len(late) > 0
    assert named == [("window-1", missed(window, time)) for _, number, time in given_rows if number in late]


def test_a_record_that_left_nothing_behind_takes_no_number_either() -> None:
    given_rows = [("a", 0, 999), ("a", 1, 979), ("a", 2, 1009), ("a", 3, 1009)]
    window = Sliding(15, grace=5)
    run, whole = Run(window), Run(window).feed(given_rows).commit(close=True)
    for row in given_rows:
        run.feed([row]).commit().crash()
    run.commit(close=True)
    assert run.late == whole.late == [1]
    assert run.driver.result.changelog == whole.driver.result.changelog
