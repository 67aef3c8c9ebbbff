"""Which session each record of a batch goes to, and which sessions become one: pure intervals, no state.

A record joins the session of its key that is at most the gap away from it; with two of them it makes them one; with
none it begins one. Sessions that are over take no part in it, and a record whose session would be over as soon as it is
made is late. Both depend on stream time as the record sees it, so records count in the order in which they come.

Records that came within their grace cannot notice any of that: no session near them can be over. Where a key has
only such records in a batch, and they join at most one session each time, that is done in columns. A key for which
something else happens goes a record at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streampipe.records import IntArray

LATE = -1


@dataclass(frozen=True, slots=True)
class Rows:
    """Records in the order in which they come, of keys numbered from 0. All times are in ms.

    A session that ends before `takes_from[i]` is too old for record i to be part of it, one that ends before
    `over_before[i]` is not there any more for it.
    """

    key: IntArray
    time: IntArray
    takes_from: IntArray
    over_before: IntArray


@dataclass(frozen=True, slots=True)
class Sessions:
    """Sessions there are, in the order of their keys and starts."""

    key: IntArray
    start: IntArray
    end: IntArray


@dataclass(slots=True)
class Plan:
    """`session[i]` is where record i goes (LATE: nowhere): the number of a session there was, or of a new one.

    New ones have the numbers that follow; `key_of_new` has their keys. `merges` are (level, into, source), in order:
    those of a level come after all records of sessions of lower levels and before those of its own.
    """

    session: IntArray
    key_of_new: list[int] = field(default_factory=list)
    merges: list[tuple[int, int, int]] = field(default_factory=list)
    level: dict[int, int] = field(default_factory=dict)
    """Level of the sessions whose level is not 0."""


def plan(rows: Rows, sessions: Sessions, gap: int) -> Plan:
    """The plan for one batch."""
    made = Plan(np.full(len(rows.key), LATE))
    safe = (rows.time >= rows.takes_from) & (rows.time - gap >= rows.over_before)
    slow = np.unique(rows.key[~safe])
    slow = np.union1d(slow, _in_columns(rows, sessions, gap, slow, made))
    if len(slow):
        _one_by_one(rows, sessions, gap, slow, made)
    return made


def _in_columns(rows: Rows, sessions: Sessions, gap: int, slow: IntArray, made: Plan) -> IntArray:
    """Plan for the keys that are not slow; returns those of them for which it is not so simple."""
    own = np.flatnonzero(~np.isin(rows.key, slow))
    old = np.flatnonzero(~np.isin(sessions.key, slow))
    if not len(own):
        return own
    key = np.concatenate([sessions.key[old], rows.key[own]])
    start = np.concatenate([sessions.start[old], rows.time[own]])
    end = np.concatenate([sessions.end[old], rows.time[own]])
    together = _components(key, start, end, gap)
    # sessions come before records here, so a component's first element is its session if it has one
    order = np.argsort(together, kind="stable")
    of, start, end = together[order], start[order], end[order]
    first = np.diff(of, prepend=-1) != 0
    apart = ~first & (
        (start > _running_max(of, end) + gap) | (start < -_running_max(of, -start) - gap) | (order < len(old))
    )
    odd = np.unique(key[order][apart])
    heads = order[first]
    begun = heads < len(old)
    fresh = ~begun & ~np.isin(key[heads], odd)
    homes = np.full(len(heads), LATE)
    homes[begun] = old[heads[begun]]
    homes[fresh] = len(sessions.key) + len(made.key_of_new) + np.arange(np.count_nonzero(fresh))
    made.key_of_new += key[heads[fresh]].tolist()
    simple = ~np.isin(rows.key[own], odd)
    made.session[own[simple]] = homes[together[len(old) :][simple]]
    return odd


def _components(key: IntArray, start: IntArray, end: IntArray, gap: int) -> IntArray:
    """A number for each interval, equal for those of a key with at most the gap between one and the next."""
    order = np.lexsort((start, key))
    key, start = key[order], start[order]
    reach = _running_max(key, end[order])
    cut = (np.diff(key, prepend=-1) != 0) | (start > reach + gap)
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(cut) - 1
    return numbers


def _running_max(group: IntArray, values: IntArray) -> IntArray:
    """The largest value before each one in its group (its own if it is the first); groups are in ascending order."""
    distinct, ranks = np.unique(values, return_inverse=True)
    ranked = group * len(distinct)
    before = np.empty(len(values), np.int64)
    before[0] = ranked[0] + ranks[0]
    before[1:] = np.maximum.accumulate(ranked + ranks)[:-1]
    own = before < ranked  # the largest so far is of another group
    ranks_before: IntArray = np.where(own, ranks, before - ranked)
    found: IntArray = distinct[ranks_before]
    return found


def _one_by_one(rows: Rows, sessions: Sessions, gap: int, slow: IntArray, made: Plan) -> None:
    by_key: dict[int, list[list[int]]] = {key: [] for key in slow.tolist()}
    of = np.flatnonzero(np.isin(sessions.key, slow))
    held = zip(
        *(column[of].tolist() for column in (sessions.key, sessions.start, sessions.end)), of.tolist(), strict=True
    )
    for key, start, end, number in held:
        by_key[key].append([start, end, number])
    own = np.flatnonzero(np.isin(rows.key, slow))
    columns = (column[own].tolist() for column in (rows.key, rows.time, rows.takes_from, rows.over_before))
    for row, key, time, takes_from, over_before in zip(own.tolist(), *columns, strict=True):
        near = _near(by_key[key], time, gap, over_before)
        if max([time, *(s[1] for s in near)]) >= takes_from:
            made.session[row] = _join(made, by_key[key], near, key, time, len(sessions.key))


def _near(held: list[list[int]], time: int, gap: int, over_before: int) -> list[list[int]]:
    """The sessions of a key near a time, in order. Those that are over are taken out on the way."""
    near: list[list[int]] = []
    at = bisect_right(held, time + gap, key=_start) - 1
    while at >= 0 and (held[at][1] < over_before or held[at][1] >= time - gap):
        if held[at][1] < over_before:
            del held[at]
        else:
            near.append(held[at])
        at -= 1
    return near[::-1]


def _start(session: Sequence[int]) -> int:
    return session[0]


def _join(made: Plan, held: list[list[int]], near: list[list[int]], key: int, time: int, old: int) -> int:
    """Put a record into the session that it is near to, or into a new one; returns its number."""
    if len(near) == 1:
        session = near[0]
        session[1] = max(session[1], time)
        if time < session[0]:
            session[0] = time
            held.sort()
        return session[2]
    number = old + len(made.key_of_new)
    made.key_of_new.append(key)
    if near:
        level = 1 + max(made.level.get(s[2], 0) for s in near)
        made.level[number] = level
        made.merges += [(level, number, s[2]) for s in near]
    for session in near:
        held.remove(session)
    held.append([min([time, *(s[0] for s in near)]), max([time, *(s[1] for s in near)]), number])
    held.sort()
    return number
