"""Plain Python functions that remember: one call a record, with the states of its key, and calls when timers ring.

One record at a time, in order: stream time comes to the record's time; what is due by then happens, timers and the
end of states alike, by time and key; then the function is called; then what it made due at once happens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from streampipe.errors import TopologyError
from streampipe.keyed_state import Clock, Handle, KeyState, Timer, Timers, ValueState, asked_states
from streampipe.operators.edges import refuse
from streampipe.operators.effects import OK, Effects, Reason, positions
from streampipe.operators.frame import Column, Frame, Origin
from streampipe.operators.functions.function import Calls, FunctionStep
from streampipe.operators.functions.function_state import STREAM_TIME, Agenda, KeyStateCodec
from streampipe.operators.functions.signature import check_timer_function
from streampipe.operators.functions.timer_frames import Home, Rung, TimerFrames
from streampipe.operators.grouping import check_key_columns, check_state_key, group, null_rows, state_keys
from streampipe.operators.stateful import AT_ONCE, StoredStep
from streampipe.operators.stream_time import LAST_TIME, NEVER, StreamTimes, iso
from streampipe.state.port import Stores
from streampipe.topology.nodes import StatefulHandle

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Calls(Calls):
    """Events of timers have the negative source ~i, for the i-th of them."""

    rung: list[Rung] = field(default_factory=list)


class StatefulFunctionStep(FunctionStep, StoredStep):
    """Calls the function with each row and the states of its key, and `on_timer` with each timer that is due."""

    def __init__(
        self,
        node: StatefulHandle,
        effects: Effects,
        schema: pa.Schema,
        output: pa.Schema,
        defaults: Mapping[str, Any],
        sleep: Callable[[float], None],
        stores: Stores,
    ) -> None:
        """Raises TopologyError for a key, a function or states that cannot be."""
        super().__init__(node.name, effects, node.function, node.retry, schema, output, defaults, sleep)
        assert node.key is not None
        self._key, self._stores, self.changelog = node.key, stores, node.changelog
        check_key_columns(node.name, node.key, schema)
        key_types = {column: schema.field(column).type for column in node.key}
        check_state_key(node.name, node.key, list(key_types.values()))
        states, on_timer = asked_states(node.function), check_timer_function(node.name, node.function, node.on_timer)
        if clash := [name for name in states.keys() & on_timer.keys() if states[name] is not on_timer[name]]:
            raise TopologyError(f"handler {node.name!r}: {clash[0]!r} is another kind of state in its on_timer")
        kinds = {name: kind for name, kind in (states | on_timer).items() if kind is not Timers}
        self._codec = KeyStateCodec(node.name, key_types, kinds)
        self._frames = TimerFrames(node.name, key_types)
        self._kinds, self._states = kinds, sorted(kinds)
        self.json_columns = {*kinds, "timers"}
        self._user, self._user_timer, self._ttl_ms = node.function, node.on_timer, node.ttl_ms
        self._handles = [kind(name) for name, kind in states.items()]
        self._timer_handles = [kind(name) for name, kind in on_timer.items()]
        self._function = self._call_bound
        self.timed = self.clocked = node.on_timer is not None
        self.timed |= node.ttl_ms is not None
        self.idle_after_s = None if node.idle_after_ms is None else node.idle_after_ms / 1000
        self._times = StreamTimes()
        self._open = {}
        self._agendas: dict[Clock, dict[int, Agenda]] = {"stream": {}, "wall": {}}
        self._known: dict[Home, KeyState] = {}
        self._dirty: set[Home] = set()
        self._calls = _Calls()
        self._homes: list[Home] = []
        self._seen: list[int] = []
        self._at: tuple[Home, KeyState, int] = (0, b""), KeyState(), NEVER
        """Whose call is in progress: home, state and stream time."""

    # --- records ------------------------------------------------------------------------------------------------

    def process(self, frame: Frame) -> None:
        """Call for each row, in order."""
        frame = refuse(self.effects, frame, null_rows([frame.columns[c] for c in self._key]), self.name, "key")
        if self.timed:
            unusable = (frame.timestamps < 0) | (frame.timestamps >= LAST_TIME)
            frame = refuse(self.effects, frame, unusable, self.name, "timestamp")
        frame, rows = self._readable(frame)
        if not len(frame):
            return
        partitions = np.unique(frame.partitions).tolist()
        if self.effects.now_ms is not None:
            self._ring_all("wall", partitions, self.effects.now_ms)
        self._homes = self._homes_of(frame)
        self._load(self._homes)
        self._seen = self._times.running(frame).tolist() if self.timed else [NEVER] * len(frame)
        self._call(frame, map(self._enter, range(len(frame)), rows), self._calls)
        self._ring_all("stream", partitions)
        self._send(frame)

    def _homes_of(self, frame: Frame) -> list[Home]:
        columns = [frame.columns[c] for c in self._key]
        groups = group(columns, frame.partitions)
        homes = list(zip(frame.partitions[groups.first].tolist(), state_keys(columns, groups), strict=True))
        return [homes[g] for g in groups.of.tolist()]

    def _load(self, homes: Iterable[Home]) -> None:
        """Read what is known of these keys, at once."""
        missing: dict[int, list[bytes]] = {}
        for partition, key in set(homes) - self._known.keys():
            missing.setdefault(partition, []).append(key)
        for partition, keys in missing.items():
            for key, value in zip(keys, self._open[partition].get_many(keys), strict=True):
                self._known[partition, key] = self._codec.decode(value)

    def _enter(self, position: int, row: Any) -> Any:
        """It is this row's turn: what is due happens first."""
        home, now = self._homes[position], self._seen[position]
        if self.timed:
            (before, _), _, then = self._at
            if position and before in self._open:
                self._ring("stream", before, then)
            self._ring("stream", home[0], now)
        self._at = home, self._known[home], now
        return row

    def _call_bound(self, row: Any) -> Any:
        """Call the function with the states of its key; a call that fails changes none of them."""
        return self._changing(self._user, row, self._handles)

    def _changing(
        self, function: Callable[..., Any], given: Any, handles: Sequence[Handle], rung: Timer | None = None
    ) -> Any:
        home, held, now = self._at
        for handle in handles:
            handle.bind(held, now, rung)
        try:
            result = function(given, *handles)
        except BaseException:
            held.undo()
            raise
        if held.changed:
            self._changed(home, held, now)
        return result

    def _changed(self, home: Home, held: KeyState, now: int) -> None:
        held.keep()
        held.changed_ms = now
        self._dirty.add(home)
        if self.timed:
            self._plan(home, held)

    # --- time ---------------------------------------------------------------------------------------------------

    def _plan(self, home: Home, held: KeyState) -> None:
        """Note when to look at this key again."""
        partition, key = home
        for (clock, _), at_ms in held.timers.items():
            self._agendas[clock][partition].plan(key, at_ms)
        if self._ttl_ms is not None and held.values:
            self._agendas["stream"][partition].plan(key, held.changed_ms + self._ttl_ms)

    def _ring_all(self, clock: Clock, partitions: Collection[int], now_ms: int | None = None) -> None:
        """Let what is due happen, by default by stream time."""
        if self.timed:
            for partition in partitions:
                self._ring(clock, partition, self._times[partition] if now_ms is None else now_ms)

    def _ring(self, clock: Clock, partition: int, now_ms: int) -> None:
        agenda = self._agendas[clock][partition]
        while (due := agenda.pop(now_ms)) is not None:
            due_ms, key = due
            home = partition, key
            self._load([home])
            held = self._known[home]
            ripe = [(at_ms, name) for (of, name), at_ms in held.timers.items() if of == clock and at_ms <= due_ms]
            if ripe:
                self._fire(clock, home, held, *min(ripe), now_ms if clock == "stream" else self._times[partition])
            elif clock == "stream" and self._over(held, due_ms):
                held.values.clear()
                self._dirty.add(home)
            self._plan(home, held)

    def _over(self, held: KeyState, due_ms: int) -> bool:
        """Whether it is forgotten by then; the look at it may be for a timer that was moved."""
        return self._ttl_ms is not None and bool(held.values) and held.changed_ms + self._ttl_ms <= due_ms

    def _fire(self, clock: Clock, home: Home, held: KeyState, at_ms: int, name: str, now: int) -> None:
        """Call `on_timer`. The timer is over whatever becomes of the call."""
        del held.timers[clock, name]
        self._dirty.add(home)
        rung = Rung(home, name, at_ms, at_ms if clock == "stream" else max(now, 0))
        timer = Timer(self._frames.named(home[1]), _EPOCH + timedelta(milliseconds=at_ms), name, clock)
        self._at = home, held, now
        try:
            result = self._call_timer(timer)
        except Exception as error:  # noqa: BLE001 - whatever user code raises is this timer's fate, not ours
            told, failed = self._frames.of([rung]), dict[int, Reason]()
            result = self._again_or_fail(self._call_timer, told, 0, timer, error, failed)
            if failed:
                self.effects.dead_letters(told, positions(failed), self.name, failed.__getitem__)
        self._calls.add(result, ~len(self._calls.rung))
        self._calls.rung.append(rung)

    def _call_timer(self, timer: Timer) -> Any:
        assert self._user_timer is not None
        return self._changing(self._user_timer, timer, self._timer_handles, timer)

    def advance(self, now_ms: int, idle: Collection[int]) -> None:
        """Stream time of idle partitions follows the wall clock while something waits for it."""
        for partition in idle:
            if partition in self._open and len(self._agendas["stream"][partition]):
                self._times.follow(partition, now_ms)
        self._ring_all("stream", self._open)
        self._send(None)

    def tick(self, now_ms: int, partitions: Collection[int]) -> None:
        """The wall clock goes on."""
        self._ring_all("wall", self._open.keys() & set(partitions), now_ms)
        self._send(None)

    def close_all(self) -> None:
        """Every timer in stream time that is set now rings, as if time had passed."""
        self.flush()
        for partition, store in self._open.items():
            held = [self._codec.decode(value) for key, value in store.range() if key != STREAM_TIME]
            ends = [at_ms for state in held for (clock, _), at_ms in state.timers.items() if clock == "stream"]
            self._times.follow(partition, max(ends, default=NEVER))
        self._ring_all("stream", self._open)
        self._send(None)

    # --- results ------------------------------------------------------------------------------------------------

    def _send(self, frame: Frame | None) -> None:
        """Hand on what came of the calls so far, in their order."""
        calls, self._calls = self._calls, _Calls()
        if frame is not None and calls.failed:
            self.effects.dead_letters(frame, positions(calls.failed), self.name, calls.failed.__getitem__)
        if not calls.rung:
            if frame is not None and calls.events:
                self._emit(frame, calls.events, calls.sources)
            return
        if calls.events:
            entries = list(dict.fromkeys(calls.sources))
            numbers = {source: number for number, source in enumerate(entries)}
            if frame is None:
                told = self._frames.of([calls.rung[~entry] for entry in entries])
            else:
                told = self._frames.mixed(frame, calls.rung, entries)
            self._emit(told, calls.events, [numbers[source] for source in calls.sources])

    # --- state --------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what changed to stores and changelog, and forget what was read."""
        changes: list[tuple[int, bytes, bytes | None]] = []
        for partition, key in sorted(self._dirty):
            value = self._codec.encode(self._known[partition, key])
            if value is not None or self._open[partition].get(key) is not None:
                changes.append((partition, key, value))
        if self.timed:
            changes += [(p, STREAM_TIME, self._codec.encode_time(time)) for p, time in self._times.take_moved()]
        self._log([p for p, _, _ in changes], [k for _, k, _ in changes], [v for _, _, v in changes])
        self._dirty.clear()
        self._known.clear()

    def open(self, partition: int) -> None:
        """Take a partition on, its state empty."""
        super().open(partition)
        self._times.open(partition)
        for agendas in self._agendas.values():
            agendas[partition] = Agenda()

    def restored(self, partition: int) -> None:
        """Timers and the ends of states come back, where there may be some. Raises StateCorrupted."""
        store = self._open[partition]
        if (time := store.get(STREAM_TIME)) is not None:
            self._times.restore(partition, self._codec.decode_time(time))
        for keys, values in store.scan(AT_ONCE):
            if not self.timed:
                self._codec.check(values)
                continue
            for key, value in zip(keys, values, strict=True):
                if key != STREAM_TIME:
                    self._plan((partition, key), self._codec.decode(value))

    def close(self, partition: int) -> None:
        """Let a partition go, with all that is not flushed."""
        if partition in self._open:
            self._times.close(partition)
            for agendas in self._agendas.values():
                del agendas[partition]
            self._known = {home: held for home, held in self._known.items() if home[0] != partition}
            self._dirty = {home for home in self._dirty if home[0] != partition}
        super().close(partition)

    def show(self, partition: int) -> None:
        """Emit what is remembered: the key, each state, and the timers, as JSON."""
        held = {k: self._codec.decode(v) for k, v in self._open[partition].range() if k != STREAM_TIME}
        if not held:
            return
        columns = self._frames.columns(list(held))
        record_keys = self._frames.record_keys(columns)
        for name in self._states:
            values = [state.values.get(name) for state in held.values()]
            if self._kinds[name] is ValueState:
                values = [None if value is None else value[0] for value in values]
            columns[name] = _as_text(values)
        if self.clocked:
            columns["timers"] = _as_text([_shown_timers(state) for state in held.values()])
        times = np.array([max(state.changed_ms, 0) for state in held.values()])
        origin = Origin(self.name, record_keys, times, np.full(len(held), partition))
        origin.mark(None, OK)
        self.emit(Frame({name: Column(arrow=array) for name, array in columns.items()}, origin))


def _as_text(values: Iterable[Any]) -> pa.Array:
    return pa.array([None if value is None else orjson.dumps(value).decode() for value in values], pa.string())


def _shown_timers(state: KeyState) -> list[dict[str, str]]:
    return [{"name": name, "clock": clock, "at": iso(at_ms)} for (clock, name), at_ms in state.timers.items()]
