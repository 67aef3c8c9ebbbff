"""The task is pure: records in, output out, whatever clocks and networks do."""

from __future__ import annotations

import socket
import time
from typing import Any, NoReturn

import pytest

from streampipe.records import batch_of
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import PIPELINES, SCHEMAS
from tests.operators.support import FOLDER


@pytest.mark.parametrize("make", PIPELINES, ids=lambda f: f.__name__)
def test_no_operator_reads_a_clock_or_a_socket(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(make(), SCHEMAS, FOLDER / f"pure-{make.__name__}")
    inputs = {t for s in driver.task.subtopologies for t in s.streams + s.tables}
    events = [Event("in", "a", {"k": "a", "x": x, "y": 0.5}, 100 * x) for x in range(9)]
    events.append(Event("in", "a", b"garbage", 1))
    driver.feed([e for e in events if e.topic in inputs][:1])  # the registry may be asked for a schema once
    records = driver.encode([e for e in events if e.topic in inputs])

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a pure room asked the world")

    with monkeypatch.context() as patched:
        for name in ("time", "monotonic", "perf_counter", "time_ns", "sleep"):
            patched.setattr(time, name, refuse)
        patched.setattr(socket, "socket", refuse)
        driver.task.process(batch_of(records))
        out = driver.task.drain()
    assert out.outcomes["in"].sum() == len(records)
