"""Any processor that is refused for its numbers of partitions is accepted once the named repairs are made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streampipe import Processor, Stream, Table, agg
from streampipe.errors import TopologyError
from streampipe.runtime.topics import needed_topics
from streampipe.topology.nodes import Topology
from tests.proof import EXAMPLES

pytestmark = pytest.mark.proof

STEPS = ["source", "table", "filter", "key_by", "repartition", "agg", "look", "look", "pair", "pair", "merge", "tables"]
Step = tuple[str, int, int]
"""What to do, and with which of the streams or tables so far."""


@dataclass(slots=True)
class Repairs:
    """What was written so far: `.repartition()` on a side (0 left, 1 right) of a node, and new topics of tables."""

    sides: set[tuple[str, int]] = field(default_factory=set)
    topics: dict[str, str] = field(default_factory=dict)

    def follow(self, error: str, counts: dict[str, int]) -> None:
        """Make the repairs that an error names, of which there must be a new one."""
        sides = {
            (node, int("other" in code)) for node, code in re.findall(r"to '(\S+)', which .*?: write (\S+)", error)
        }
        made = re.findall(r"topic create ((\S+?)(?:-\d)*-(\d)) --partitions", error)
        counts |= {new: int(count) for new, _, count in made}
        assert made or sides - self.sides, error
        self.topics |= {old: new for new, old, _ in made}
        self.sides |= sides


def described(steps: list[Step], repairs: Repairs) -> Topology:
    """The processor of these steps, repaired."""
    p = Processor("p")
    streams, tables = [p.source("s", key="k")], [p.table(repairs.topics.get("t", "t"), key="k")]
    for number, (step, *which) in enumerate(steps):
        left, right = (streams[n % len(streams)] for n in which)
        one, other = (tables[n % len(tables)] for n in which)
        name = f"n{number}"
        if (name, 0) in repairs.sides:
            left = left.repartition()
        if (name, 1) in repairs.sides:
            right = right.repartition()
        match step:
            case "source":
                streams.append(p.source(f"s{number}", key="k"))
            case "table":
                tables.append(p.table(repairs.topics.get(f"t{number}", f"t{number}"), key="k"))
            case _:
                streams.append(_after(step, name, left, right, one, other))
    for stream in streams:
        stream.to("out")
    return p.topology


def _after(step: str, name: str, left: Stream, right: Stream, one: Table, other: Table) -> Stream:
    match step:
        case "filter":
            return left.filter(pl.col("x") > 0, name=name)
        case "key_by":
            return left.key_by("j").key_by("k", name=name)
        case "repartition":
            return left.repartition(name=name)
        case "agg":
            return left.agg(n=agg.count(), name=name)
        case "look":
            return left.join(other, on="k", name=name)
        case "pair":
            return left.join(right, on="k", within=1, name=name)
        case "merge":
            return left.merge(right, name=name)
        case _:
            return one.join(other, name=name)


@settings(max_examples=EXAMPLES // 4)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9), st.integers(0, 9)), max_size=9),
    st.lists(st.integers(2, 4), min_size=22, max_size=22),
)
def test_the_repairs_that_the_error_names_are_enough(steps: list[Step], sizes: list[int]) -> None:
    topics = [f"{kind}{number}" for kind in "st" for number in ["", *range(10)]]
    counts = dict(zip(topics, sizes, strict=True))
    repairs = Repairs()
    try:
        topology = described(steps, repairs)
    except TopologyError:
        assume(False)  # joins a stream with itself
    while True:
        try:
            needed = {topic.name: topic.partitions for topic in needed_topics(topology, counts)}
            break
        except TopologyError as error:
            repairs.follow(str(error), counts)
            topology = described(steps, repairs)
    assert {t.name: t.partitions for t in needed_topics(topology, counts | needed)} == needed
