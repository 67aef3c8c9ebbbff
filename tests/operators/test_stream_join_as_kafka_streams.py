"""Joins of streams beside Kafka Streams' own answers: every result that differs is of a record that was over.

Over is a record that no later one may join: stream time is more than the span and the grace after its own. Here such
a record joins nothing. Kafka Streams asks its stores instead, each of which keeps a record until that side's newest is
both spans and the grace after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pytest

from tests.operators.join_oracle import LEFT, RIGHT, JoinOracle, Row, Told
from tests.operators.test_stream_join import driver, inputs, named, ours

Result = tuple[Any, ...]
"""Key, left and right value, and time of a result."""
LETS_GO_LATE = (52, 284)
"""Cases in which Kafka Streams let go of what is over with a later record than the one that ended it."""


@dataclass
class Case:
    """What can come of the records of a case: pairs by the numbers of their records, the earlier first, and singles."""

    rows: list[Row]
    size: int
    grace: int
    how: str

    def __post_init__(self) -> None:
        self.now = list(accumulate((row.time for row in self.rows), max))
        oracle = JoinOracle(self.size, self.size, self.grace, self.how)
        numbers = range(len(self.rows))
        near = [(i, j) for j in numbers for i in range(j) if oracle.partners(self.rows[i], self.rows[j])]
        self.pairs = {self.of(i, j): (i, j) for i, j in near}
        kept = {"inner": (), "left": (LEFT,), "outer": (LEFT, RIGHT)}[self.how]
        self.singles = {self.of(i): i for i in numbers if self.rows[i].side in kept}

    def of(self, *numbers: int) -> Result:
        """The result of a pair, or of one record."""
        rows = [self.rows[i] for i in numbers]
        values = {row.side: row.value for row in rows}
        return rows[0].key, values.get(LEFT), values.get(RIGHT), max(row.time for row in rows)

    def over(self, number: int, at: int) -> bool:
        """Whether a record is over when another one comes; of the same one: whether it comes late."""
        return self.rows[number].time + self.size + self.grace < self.now[at]

    def any_over(self, pair: tuple[int, int]) -> bool:
        """Whether one of a pair is over when the later one comes."""
        return any(self.over(number, pair[1]) for number in pair)

    def stored(self, pair: tuple[int, int]) -> bool:
        """Whether Kafka Streams' store still has the earlier of a pair when the later one comes."""
        early, late = pair
        side = self.rows[early].side
        newest = max(row.time for row in self.rows[:late] if row.side == side)
        return self.rows[early].time > newest - 2 * self.size - self.grace


def told(case: dict[str, Any]) -> tuple[Case, dict[Result, int], dict[Result, int]]:
    """A case; what we told, and what Kafka Streams did, each with the number of the record that it came with."""
    of = Case(inputs(case), case["size"], case["grace"], case["how"])
    mine = ours(driver(case["how"], of.size, of.grace), of.rows, 1)
    theirs = []
    for number, key, value, time in case["output"]:
        left, right = (None if side == "null" else side for side in value.split("|"))
        theirs.append(Told(number, key, left, right, time))
    both = [{tuple(t[1:]): t.after for t in results} for results in (mine, theirs)]
    assert [len(both[0]), len(both[1])] == [len(mine), len(theirs)], "a result is told once"
    assert {*both[0], *both[1]} <= {*of.pairs, *of.singles}
    return of, both[0], both[1]


@pytest.mark.parametrize("case", named())
def test_pairs_differ_only_where_its_store_had_a_record_that_was_over_or_had_lost_one_that_was_not(
    case: dict[str, Any],
) -> None:
    of, mine, theirs = told(case)
    pairs = of.pairs.items()
    assert mine.keys() & of.pairs.keys() == {result for result, pair in pairs if not of.any_over(pair)}
    only_theirs = {result for result, pair in pairs if of.any_over(pair) and of.stored(pair)}
    only_ours = {result for result, pair in pairs if not of.any_over(pair) and not of.stored(pair)}
    assert (theirs.keys() - mine.keys()) & of.pairs.keys() == only_theirs
    assert (mine.keys() - theirs.keys()) & of.pairs.keys() == only_ours
    # a store that is to keep no time at all has no room for what is exactly at its end
    assert not only_ours or of.size == 0


@pytest.mark.parametrize("case", named())
def test_records_go_out_alone_as_in_kafka_streams_but_for_late_ones_and_those_of_pairs_that_differ(
    case: dict[str, Any],
) -> None:
    of, mine, theirs = told(case)
    differing = {number for result in mine.keys() ^ theirs.keys() for number in of.pairs.get(result, ())}
    late = {number for number in of.singles.values() if of.over(number, number)}
    only_theirs = {of.singles[result] for result in theirs.keys() - mine.keys() if result in of.singles}
    only_ours = {of.singles[result] for result in mine.keys() - theirs.keys() if result in of.singles}
    assert only_theirs <= late | differing
    assert only_ours <= differing - late
    # a late one always goes out alone there, unless its store had a partner
    assert late - differing <= only_theirs


@pytest.mark.parametrize("case", named())
def test_what_both_tell_comes_with_the_same_record_unless_it_came_alone_after_its_span(case: dict[str, Any]) -> None:
    of, mine, theirs = told(case)
    for result in mine.keys() & theirs.keys():
        number = of.singles.get(result)
        if number is None or of.rows[number].time + of.size >= of.now[number]:
            assert mine[result] == theirs[result] or (number is not None and case["id"] in LETS_GO_LATE)
        else:  # it waits for what comes within the grace, where Kafka Streams does not
            assert mine[result] > theirs[result] == number
