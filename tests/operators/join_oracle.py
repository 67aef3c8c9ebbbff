"""Stream-stream joins by definition: one record after the other, every pair looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

LEFT, RIGHT = 0, 1


class Row(NamedTuple):
    """A record of a side."""

    side: int
    key: str | None
    value: str
    time: int


class Told(NamedTuple):
    """A result and the number of the record that it came with."""

    after: int
    key: str | None
    left: str | None
    right: str | None
    time: int


@dataclass
class _Waiting:
    row: Row
    met: bool = False


@dataclass
class JoinOracle:
    """Results in order, and the numbers of the records that are late.

    `as_kafka_streams`: nothing is late, a record meets what its store still keeps (by the newest record of that side),
    and one that comes when the end of its window has passed goes out alone at once, grace or not.
    """

    before: int
    after: int
    grace: int
    how: str
    as_kafka_streams: bool = False
    told: list[Told] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    _now: int = -1
    _kept: list[_Waiting] = field(default_factory=list)
    _newest: Counter[int] = field(default_factory=Counter)

    def run(self, rows: Iterable[Row]) -> JoinOracle:
        for number, row in enumerate(rows):
            self._take(number, row)
        return self

    def finish(self, number: int) -> JoinOracle:
        """As if time had passed everything."""
        self._now = 2**60
        self._let_go(number)
        return self

    def _take(self, number: int, row: Row) -> None:
        self._now = max(self._now, row.time)
        self._let_go(number)
        if self._over(row) and not self.as_kafka_streams:
            self.late.append(number)
            return
        mine = _Waiting(row)
        if row.key is None:
            self._alone(number, mine)
            return
        partners = [w for w in self._kept if self.partners(row, w.row) and self._there(w.row)]
        for other in sorted(partners, key=lambda w: w.row.time):  # stable: then as they came
            mine.met = other.met = True
            self._tell(number, row, other.row)
        if self.as_kafka_streams and not mine.met and row.time + self._reach(row.side) - self.grace < self._now:
            self._alone(number, mine)
        self._kept.append(mine)
        self._newest[row.side] = max(self._newest[row.side], row.time)

    def _let_go(self, number: int) -> None:
        for waiting in sorted(self._kept, key=lambda w: w.row.time + self._reach(w.row.side)):
            if self._over(waiting.row) and not waiting.met:
                self._alone(number, waiting)

    def _alone(self, number: int, waiting: _Waiting) -> None:
        waiting.met = True
        if self.how == "outer" or (self.how == "left" and waiting.row.side == LEFT):
            self._tell(number, waiting.row, None)

    def _tell(self, number: int, row: Row, other: Row | None) -> None:
        values = {row.side: row.value} | ({} if other is None else {other.side: other.value})
        time = row.time if other is None else max(row.time, other.time)
        self.told.append(Told(number, row.key, values.get(LEFT), values.get(RIGHT), time))

    def _reach(self, side: int) -> int:
        return (self.after if side == LEFT else self.before) + self.grace

    def _over(self, row: Row) -> bool:
        return row.time + self._reach(row.side) < self._now

    def _there(self, row: Row) -> bool:
        if self.as_kafka_streams:
            return row.time > self._newest[row.side] - (self.before + self.after + self.grace)
        return not self._over(row)

    def partners(self, one: Row, other: Row) -> bool:
        """Whether two records are a pair, if both are there."""
        left, right = (one, other) if one.side == LEFT else (other, one)
        near = left.time - self.before <= right.time <= left.time + self.after
        return one.side != other.side and one.key == other.key and near
