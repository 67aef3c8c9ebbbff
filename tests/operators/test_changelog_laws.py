"""What a commit writes into changelogs: one record for each state key that changed, and none for any other."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streampipe import Processor
from tests.operators import pipelines
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import SCHEMAS
from tests.proof import EXAMPLES

FOLDER = Path(tempfile.mkdtemp(prefix="streampipe-test-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

WITHOUT = (pipelines.looked_up, pipelines.joined_inner, pipelines.tables)
"""Tables: their own topic is their changelog."""
STATELESS = (
    pipelines.filtered, pipelines.derived, pipelines.expected, pipelines.handled, pipelines.branched, pipelines.keyed
)  # fmt: skip
STATEFUL = [make for make in pipelines.PIPELINES if make not in (*WITHOUT, *STATELESS)]

Entry = tuple[str, int, bytes, bytes | None]
"""Topic, partition, key and value of a changelog record."""


@st.composite
def inputs(draw: Any) -> list[tuple[Event, bool]]:
    """Records whose time goes on, now and then back, and whether a commit comes after each."""
    now, made = 0, []
    for _ in range(draw(st.integers(1, 20))):
        now += draw(st.sampled_from([0, 1, 5, 12, 30, 150]))
        time, key = now - draw(st.sampled_from([0, 0, 3, 25, 60])), draw(st.sampled_from("abe"))
        value = {"k": key, "x": draw(st.none() | st.integers(0, 9)), "y": draw(st.sampled_from([None, 0.5, 2.0]))}
        topic = draw(st.sampled_from(["in", "in", "rows"]))
        event = Event(topic, key, value if topic == "in" else {"k": key, "label": "l"}, time, ord(key) % 4)
        made.append((event, draw(st.booleans())))
    return made


def drained(driver: Driver) -> list[Entry]:
    """The changelog records of a commit."""
    out = driver.task.drain()
    driver.collect(out)
    entries: list[Entry] = []
    for batch in out.changelog:
        assert batch.partitions is not None
        for partition, key, value in zip(batch.partitions, batch.keys, batch.values, strict=True):
            assert key is not None
            entries.append((batch.topic, partition, key, value))
    return entries


def held(driver: Driver) -> dict[tuple[str, int, bytes], bytes]:
    """What the changelogs hold."""
    return {(*log, key): value for log, entries in driver.result.changelog.items() for key, value in entries.items()}


def topics(processor: Processor) -> set[str]:
    return {node.topic for node in processor.topology.nodes if hasattr(node, "topic")}


@pytest.mark.parametrize("make", STATEFUL)
@pytest.mark.proof
@given(inputs())
@settings(max_examples=max(EXAMPLES // 100, 1))
def test_a_commit_writes_one_record_for_each_state_key_that_changed_and_no_other(
    make: Callable[[], Processor], given_: list[tuple[Event, bool]]
) -> None:
    processor = make()
    driver, known = Driver(processor, SCHEMAS, FOLDER / make.__name__), topics(processor)
    for event, commit in [*given_, (given_[-1][0], True)]:
        before = held(driver)
        if event.topic in known:
            driver.feed([event])
        assert held(driver) == before, "between commits nothing is written"
        if commit:
            entries = drained(driver)
            after = held(driver)
            changed = {at for at in {*before, *after} if before.get(at) != after.get(at)}
            assert Counter(entry[:3] for entry in entries) == Counter(changed)


def test_a_session_that_takes_the_place_of_another_one_writes_one_record_there_and_one_where_it_was() -> None:
    driver = Driver(pipelines.session_updates(), SCHEMAS, FOLDER / "session_updates")
    for times in ([0, 30], [10]):
        driver.feed([Event("in", "a", {"k": "a", "x": 1, "y": None}, time, 1) for time in times])
        entries = [(key[-1], value is None) for _, _, key, value in drained(driver) if key]
    assert sorted(entries) == [(0, False), (30, True)]


@pytest.mark.parametrize("make", WITHOUT)
def test_a_table_has_no_changelog_but_its_own_topic(make: Callable[[], Processor]) -> None:
    processor = make()
    driver = Driver(processor, SCHEMAS, FOLDER / make.__name__)
    driver.feed([Event("rows", "a", {"k": "a", "label": "l"}, 1), Event("in", "a", {"k": "a", "x": 1, "y": 0.5}, 2)])
    assert drained(driver) == []
