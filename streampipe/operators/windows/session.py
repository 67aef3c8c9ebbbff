"""Sessions: windows that grow with their records, and become one when a record comes between them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from streampipe.operators.accumulators import Accumulator
from streampipe.operators.accumulators.make import check_mergeable
from streampipe.operators.deadlines import Deadlines
from streampipe.operators.effects import Effects
from streampipe.operators.frame import Column, Frame
from streampipe.operators.grouping import Groups, group
from streampipe.operators.keyed_aggregate import Home
from streampipe.operators.slots import NO_RECORD, Table
from streampipe.operators.window_state import WindowStateCodec
from streampipe.operators.windows.gathered import GatheredStep
from streampipe.operators.windows.session_plan import LATE, Plan, Rows, Sessions, plan
from streampipe.operators.windows.windowed import UTC_MS
from streampipe.records import IntArray
from streampipe.state.codec import parse_window_keys, window_keys
from streampipe.state.port import Stores
from streampipe.topology.nodes import WindowedAggregate
from streampipe.windows import Session, Update

RETRACTED = pa.field("retracted", pa.bool_(), nullable=False)
"""Whether the row takes back a session that was emitted and has become part of another one. Its aggregates are null."""

_FEW = 8
_UNBEGUN = np.iinfo(np.int64).max


class SessionTable(Table):
    """Sessions in slots. What was stored and sent of one is under the bounds that it had then."""

    def __init__(self, accumulators: Sequence[Accumulator]) -> None:
        super().__init__(accumulators)
        self.stored_start = np.zeros(0, np.int64)
        self.sent = np.zeros(0, np.bool_)
        """A result went out, and has not been taken back."""
        self.sent_start = np.zeros(0, np.int64)
        self.sent_end = np.zeros(0, np.int64)


class SessionCodec(WindowStateCodec):
    """A session is known by its key and start; its end is its largest event time."""

    def place(self, slots: Table, partition: int, keys: Sequence[bytes], starts: IntArray) -> IntArray:
        """Fresh slots for what these state keys say."""
        return slots.take(np.full(len(keys), partition, np.int64), starts, keys)


class SessionStep(GatheredStep):
    """A slot for each session that is open, still corrected, or kept so that a late record can join it to another."""

    _codec_type = SessionCodec
    _table_type = SessionTable
    _slots: SessionTable
    _index: dict[Home, list[int]]

    def __init__(self, node: WindowedAggregate, effects: Effects, schema: pa.Schema, stores: Stores) -> None:
        assert isinstance(node.window, Session)
        check_mergeable(node.name, node.aggregates)
        corrects = node.emit == "updates" or isinstance(node.late, Update)
        super().__init__(node, effects, schema, stores, more=[RETRACTED] if corrects else [])
        self._corrects, self._gap = corrects, node.window.gap_ms
        if corrects:
            names = {f.name for f in self._aggregation.fields}
            self.schema = pa.schema([f.with_nullable(True) if f.name in names else f for f in self.schema])
        self._takes_for = self._gap + self._grace + self._retention
        """How far behind stream time a session may end and still take records, in ms."""
        self._kept_for = self._takes_for if self._final else max(self._takes_for, node.window.retention_ms)
        """How far behind stream time it may end and still be there."""
        self._void: list[tuple[int, bytes, int, int]] = []
        """Partition, key, start and end of emitted sessions that are none any more."""

    # --- records ------------------------------------------------------------------------------------------------

    def _take(self, frame: Frame, seen: IntArray) -> None:
        frame, seen, columns = self._evaluated(frame, seen)
        if not self._aggregation.calls_functions:
            self._take_together(frame, seen, columns)
            return
        # a function may refuse a record, which then has no part in any session: so no key twice at the same time
        for rows in _turns(group(self._key_columns(frame), frame.partitions).of):
            self._take_together(frame.take(rows), seen[rows], {n: c.take(rows) for n, c in columns.items()})

    def _take_together(self, frame: Frame, seen: IntArray, columns: dict[str, Column]) -> None:
        if not len(frame):
            return
        groups = group(self._key_columns(frame), frame.partitions)
        homes = list(zip(frame.partitions[groups.first].tolist(), self._group_keys(frame, groups), strict=True))
        self._gather(homes)
        held = [self._near(home, *span) for home, span in zip(homes, _spans(groups, frame.timestamps), strict=True)]
        old = np.array([slot for slots in held for slot in slots], np.int64)
        of_old = np.repeat(np.arange(len(homes)), [len(slots) for slots in held])
        made = plan(
            Rows(groups.of, frame.timestamps, seen - self._takes_for, seen - self._kept_for),
            Sessions(of_old, self._slots.start[old], self._slots.timestamp[old]),
            self._gap,
        )
        late = made.session == LATE
        if late.any():
            times, kept = frame.timestamps, pa.array(~late)
            frame = self._late(frame, late, lambda row: (int(times[row]), int(times[row]), "]"))
            columns = {name: column.filter(kept) for name, column in columns.items()}
        if len(frame):
            self._carry_out(made, frame, columns, made.session[~late], old, homes)
            self._count_in(frame)

    def _near(self, home: Home, first: int, last: int) -> list[int]:
        """The sessions of a key that records from one time to another may be near to, in order."""
        held, slots = self._index.get(home, []), self._slots
        if len(held) < _FEW:
            return held
        low = bisect_left(held, first - self._gap, key=slots.timestamp.__getitem__)
        return held[low : bisect_right(held, last + self._gap, key=slots.start.__getitem__)]

    def _carry_out(
        self, made: Plan, frame: Frame, columns: dict[str, Column], of_row: IntArray, old: IntArray, homes: list[Home]
    ) -> None:
        slots, new = self._slots, [homes[g] for g in made.key_of_new]
        begun = slots.take(np.array([p for p, _ in new], np.int64), np.full(len(new), _UNBEGUN), [k for _, k in new])
        slot_of = np.concatenate([old, begun])
        levels = np.zeros(len(slot_of), np.int64)
        levels[list(made.level)] = list(made.level.values())
        for level in range(max(made.level.values(), default=0) + 1):
            self._merge([(slot_of[into], slot_of[source]) for at, into, source in made.merges if at == level])
            rows = np.flatnonzero(levels[of_row] == level)
            if len(rows) == len(frame):
                self._add(frame, columns, slot_of[of_row])
            elif len(rows):
                self._add(frame.take(rows), {n: c.take(rows) for n, c in columns.items()}, slot_of[of_row[rows]])
        self._settle(made, slot_of, begun)

    def _add(self, frame: Frame, columns: dict[str, Column], at: IntArray) -> None:
        added = self._aggregation.update(frame, columns, at)
        at, times, slots = at[added], frame.timestamps[added], self._slots
        slots.touch(at, times)
        np.minimum.at(slots.start, at, times)
        slots.pending[at] = slots.emitted[at] if self._final else True

    def _merge(self, merges: list[tuple[int, int]]) -> None:
        if merges:
            into, source = np.array(merges, np.int64).T
            self._aggregation.merge(into, source)

    def _settle(self, made: Plan, slot_of: IntArray, begun: IntArray) -> None:
        """Bounds, deadlines and the index follow, now that it is known which records were taken."""
        slots = self._slots
        for _, into, source in sorted(made.merges):
            target, part = slot_of[into], slot_of[source]
            if slots.timestamp[target] != NO_RECORD:
                slots.start[target] = min(slots.start[target], slots.start[part])
                slots.timestamp[target] = max(slots.timestamp[target], slots.timestamp[part])
                self._retract(np.array([part]))
                self._forget(np.array([part]))
        slots.discard_untouched(begun)
        begun = begun[slots.live[begun]]
        for home, slot in zip(self._homes(begun), begun.tolist(), strict=True):
            self._index.setdefault(home, []).append(slot)
            if len(self._index[home]) > 1:
                self._index[home].sort(key=slots.start.__getitem__)
        self._expect(begun)
        self._reopen(np.unique(slot_of[slots.emitted[slot_of] & slots.pending[slot_of]]))

    def _expect(self, at: IntArray) -> None:
        """Note when these sessions close and are over, as it looks now: both move as they grow."""
        slots = self._slots
        for partition in np.unique(slots.partition[at]).tolist():
            mine = at[slots.partition[at] == partition]
            if self._final:
                waiting = mine[~slots.emitted[mine]]
                self._closing[partition].add(self._closes(waiting), waiting)
            self._releasing[partition].add(self._ends(mine), mine)

    def _closes(self, at: IntArray) -> IntArray:
        """Stream time at which these sessions close: when no record within its grace could extend them any more."""
        return self._slots.timestamp[at] + (self._gap + self._grace + 1)

    def _ends(self, at: IntArray) -> IntArray:
        """Stream time at which they are over."""
        return self._slots.timestamp[at] + (self._kept_for + 1)

    def _reopen(self, at: IntArray) -> None:
        """Of these emitted sessions, those that a late record extended so far that they are not closed any more."""
        slots, partitions = self._slots, self._slots.partition[at].tolist()
        now = np.array([self._times[p] for p in partitions], np.int64)
        at = at[self._closes(at) > now]
        slots.emitted[at] = slots.pending[at] = False
        self._expect(at)

    # --- time ---------------------------------------------------------------------------------------------------

    def _closed(self, due: IntArray, partition: int) -> IntArray:
        due = self._still_there(due, partition)
        due = due[~self._slots.emitted[due]]
        return self._passed(due, self._closes(due), partition, self._closing)

    def _released(self, due: IntArray, partition: int) -> IntArray:
        due = self._still_there(due, partition)
        return self._passed(due, self._ends(due), partition, self._releasing)

    def _still_there(self, due: IntArray, partition: int) -> IntArray:
        """A slot may hold another session by now, for which all that follows holds as well."""
        due = np.unique(due)
        live: IntArray = due[self._slots.live[due] & (self._slots.partition[due] == partition)]
        return live

    def _passed(self, due: IntArray, times: IntArray, partition: int, deadlines: dict[int, Deadlines]) -> IntArray:
        """Those whose time has passed; the others have grown and wait on."""
        later = times > self._times[partition]
        deadlines[partition].add(times[later], due[later])
        return due[~later]

    def _close(self, at: IntArray) -> None:
        slots = self._slots
        self._send(at)
        slots.emitted[at], slots.dirty[at] = True, True

    def _release(self, at: IntArray) -> None:
        self._send(at[self._slots.pending[at]])
        self._forget(at)

    def _forget(self, at: IntArray) -> None:
        for home, slot in zip(self._homes(at), at.tolist(), strict=True):
            held = self._index.get(home, [])
            if slot in held:
                held.remove(slot)
                if not held:
                    del self._index[home]
        super()._forget(at)

    def _falls_due(self, partition: int, names: Sequence[bytes]) -> None:
        self._gather([(partition, key) for key in dict.fromkeys(parse_window_keys(names)[0])])

    def _due(self, at: IntArray, partition: int) -> tuple[IntArray, IntArray]:  # noqa: ARG002 - the slots know
        closes, ends = self._closes(at), self._ends(at)
        return np.where(self._slots.emitted[at], ends, closes) if self._final else ends, closes

    def _held(self, home: Home) -> list[int]:
        return self._index[home]

    # --- results ------------------------------------------------------------------------------------------------

    def _retract(self, at: IntArray) -> None:
        """What was sent of these sessions is not so any more."""
        slots = self._slots
        at = at[slots.sent[at]]
        bounds = slots.sent_start[at].tolist(), slots.sent_end[at].tolist()
        self._void += [(*home, *both) for home, *both in zip(self._homes(at), *bounds, strict=True)]
        slots.sent[at] = False

    def _send(self, at: IntArray) -> None:
        """Results of these sessions, after those that are taken back."""
        slots = self._slots
        slots.end[at] = slots.timestamp[at]
        if self._corrects:
            moved = (slots.sent_start[at] != slots.start[at]) | (slots.sent_end[at] != slots.end[at])
            self._retract(at[moved])
            self._take_back()
        at = slots.sorted(at)
        self._emit(at, [pa.array(np.zeros(len(at), np.bool_))] if self._corrects else [])
        slots.pending[at], slots.sent[at] = False, self._corrects
        slots.sent_start[at], slots.sent_end[at] = slots.start[at], slots.end[at]

    def _take_back(self) -> None:
        void, self._void = self._void, []
        if void:
            partitions, keys, starts, ends = zip(*void, strict=True)
            bounds = [pa.array(times, pa.int64()).cast(UTC_MS) for times in (starts, ends)]
            nulls = [pa.nulls(len(void), f.type) for f in self._aggregation.fields]
            more = [*bounds, pa.array(np.ones(len(void), np.bool_))]
            self._result(keys, np.array(partitions, np.int64), more, nulls, np.array(ends, np.int64))

    def show(self, partition: int) -> None:
        """Emit every session that is there, closed ones included while a late record may join them to others."""
        at = self._slots.of(partition)
        self._slots.end[at] = self._slots.timestamp[at]
        self._emit(self._slots.sorted(at), [pa.array(np.zeros(len(at), np.bool_))] if self._corrects else [])

    # --- state --------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Emit what is pending, and write changed sessions to stores and changelog."""
        slots, dirty = self._slots, np.flatnonzero(self._slots.dirty)
        moved = (slots.sent_start[dirty] != slots.start[dirty]) | (slots.sent_end[dirty] != slots.timestamp[dirty])
        self._retract(dirty[moved])
        self._send(np.flatnonzero(slots.pending))
        strayed = dirty[slots.stored[dirty] & (slots.stored_start[dirty] != slots.start[dirty])]
        self._gone += zip(slots.partition[strayed].tolist(), self._stored_keys(strayed), strict=True)
        slots.stored_start[dirty] = slots.start[dirty]
        self._write(self._moved())
        self._put_away()

    def _stored_keys(self, at: IntArray) -> list[bytes]:
        return window_keys(self._keys(at), self._slots.stored_start[at])

    def _came_back(self, partition: int, at: IntArray) -> None:
        super()._came_back(partition, at)
        slots = self._slots
        if not self._final:
            slots.emitted[at] = False
        slots.stored_start[at] = slots.sent_start[at] = slots.start[at]
        slots.sent_end[at] = slots.timestamp[at]
        # a commit leaves nothing pending, so what was sent last is what is stored
        slots.sent[at] = slots.emitted[at] if self._final else True
        for home, slot in zip(self._homes(at), at.tolist(), strict=True):
            self._index.setdefault(home, []).append(slot)
        for home in set(self._homes(at)):
            self._index[home].sort(key=slots.start.__getitem__)
        self._expect(at)

    def close(self, partition: int) -> None:
        """Let a partition go, with all that is not flushed."""
        super().close(partition)
        self._void = [void for void in self._void if void[0] != partition]


def _spans(groups: Groups, times: IntArray) -> Iterable[tuple[int, int]]:
    """First and last time of each group."""
    order = np.argsort(groups.of, kind="stable")
    starts = np.searchsorted(groups.of[order], np.arange(len(groups)))
    first, last = np.minimum.reduceat(times[order], starts), np.maximum.reduceat(times[order], starts)
    return zip(first.tolist(), last.tolist(), strict=True)


def _turns(of: IntArray) -> Iterable[IntArray]:
    """Positions, each group once in each turn, in order."""
    order = np.argsort(of, kind="stable")
    first = np.diff(of[order], prepend=-1) != 0
    turn = np.arange(len(of)) - np.maximum.accumulate(np.where(first, np.arange(len(of)), 0))
    by_turn = np.empty(len(of), np.int64)
    by_turn[order] = turn
    return [np.flatnonzero(by_turn == n) for n in range(int(turn.max(initial=-1)) + 1)]
