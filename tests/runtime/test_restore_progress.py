"""What a restore says while it goes on."""

from __future__ import annotations

import logging

import pytest

from streampipe.clock import SystemClock
from streampipe.runtime.restore_progress import RestoreProgress


class SetClock(SystemClock):
    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


def test_a_long_restore_says_every_five_seconds_how_far_how_fast_and_how_long_it_is(
    clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streampipe")
    progress = RestoreProgress(clock)
    for step in range(10):  # 1,000 records a second
        progress.moved(1_000, {"a": 15_000 - 1_000 * step, "b": 4_000, "c": 0})
        clock.now_s += 1.0
    assert caplog.messages == ["restoring state: 30 %, 1,000 records/s, about 14 s left (a 10,000, b 4,000 to go)"]


def test_a_restore_that_is_through_says_how_long_it_took_once(
    clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streampipe")
    progress = RestoreProgress(clock)
    progress.moved(0, {})
    progress.moved(500, {"a": 500})
    clock.now_s += 2.0
    progress.moved(500, {"a": 0})
    progress.moved(0, {"a": 0})
    assert caplog.messages == ["state restored: 1,000 records in 2.0 s"]
    progress.moved(5, {"a": 0})  # too short to be worth a line
    assert len(caplog.messages) == 1
