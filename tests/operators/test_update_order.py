"""What a commit tells goes on in the order of event time, so that no window behind it finds it late."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streampipe import Processor, Sliding, Tumbling, agg
from streampipe.windows import Window
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import SCHEMAS
from tests.proof import EXAMPLES

FOLDER = Path(tempfile.mkdtemp(prefix="streampipe-test-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
UPDATED = [None, Tumbling("40ms"), Sliding("30ms")]
"""Not hopping windows: what is told of one as it closes is newer than some of what another has still to tell."""


def driver(first: Window | None) -> Driver:
    p = Processor("updates")
    keyed = p.source("in", key="k")
    updates = (keyed.window(first, emit="updates") if first else keyed).agg(n=agg.count())
    updates.window(Tumbling("7ms")).agg(updates=agg.count()).to("out")
    return Driver(p, SCHEMAS, FOLDER)


@pytest.mark.proof
@pytest.mark.parametrize("first", UPDATED, ids=str)
@given(
    rows=st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 25)), max_size=20),
    restart=st.booleans(), known=st.permutations("abcdef"),
)  # fmt: skip
@example(rows=[("b", 15), ("a", 20)], restart=False, known=list("abcdef"))
@settings(max_examples=EXAMPLES // 10)
def test_updates_of_records_in_order_are_never_late(
    first: Window | None, rows: list[tuple[str, int]], restart: bool, known: list[str]
) -> None:
    made, now = driver(first), 0
    made.feed([Event("in", key, {"k": key, "x": 1, "y": 0.1}, 0, 0) for key in known]).finish()
    if restart:
        made.start()
    events = []
    for key, later in rows:
        now += later
        events.append(Event("in", key, {"k": key, "x": 1, "y": 0.1}, now, 0))
    made.feed(events).finish()
    assert [reason["class"] for _, _, reason in made.result.dead] == []
