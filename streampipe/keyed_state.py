"""What a handler may remember of each key: values, maps, lists and timers, asked for by its annotations.

Values are kept as JSON: what is read back is what JSON makes of what was stored, before a restart as after it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

import orjson

Clock = Literal["stream", "wall"]
T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_AS_THEY_ARE = frozenset({int, float, str, bool, type(None)})
_INT64 = 2**63
_NO_GUESS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS


def as_json(value: Any) -> Any:
    """What comes back of a value that is kept. Raises TypeError for one that JSON has no form for."""
    if type(value) is int and -_INT64 <= value < _INT64:
        return value  # most states count
    return orjson.loads(orjson.dumps(value, option=_NO_GUESS))


def _own(value: Any) -> Any:
    """A value for somebody who may change it."""
    return value if type(value) in _AS_THEY_ARE else as_json(value)


class KeyState:
    """All that is remembered of one key, and how to take back what a failed call did to it."""

    __slots__ = ("_before", "changed", "changed_ms", "timers", "values")

    def __init__(
        self, values: dict[str, Any] | None = None, timers: dict[tuple[Clock, str], int] | None = None, at_ms: int = 0
    ) -> None:
        self.values = values or {}
        self.timers = timers or {}
        self.changed_ms = at_ms
        """Stream time of the last change."""
        self.changed = False
        """Whether the call in progress changed something."""
        self._before: dict[str, Any] = {}

    def change(self, name: str) -> None:
        """A state is about to be changed; "" stands for the timers."""
        self.changed = True
        if name not in self._before:
            held = self.values.get(name) if name else self.timers
            self._before[name] = None if held is None else held.copy()

    def keep(self) -> None:
        """The call in progress is done."""
        self.changed = False
        self._before.clear()

    def undo(self) -> None:
        """The call in progress failed: as if it had never been."""
        for name, before in self._before.items():
            if not name:
                self.timers = before
            elif before is None:
                self.values.pop(name, None)
            else:
                self.values[name] = before
        self.keep()


@dataclass(frozen=True, slots=True)
class Timer:
    """What `on_timer` is called with: the key by column, for when it was set, and under which name."""

    key: dict[str, Any]
    at: datetime
    name: str
    clock: Clock


class Handle:
    """What a handler gets: one state of the key of the record at hand. Of no use outside the call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._held = KeyState()

    def bind(self, held: KeyState, now_ms: int, rung: Timer | None = None) -> None:  # noqa: ARG002 - see Timers
        """Be about this key from now on, at this stream time, in a call for this timer."""
        self._held = held


class ValueState(Handle, Generic[T]):
    """One value for each key."""

    def get(self, default: Any = None) -> T | Any:
        """The value, or `default`. To change it, `set` it again."""
        held = self._held.values.get(self._name)
        return default if held is None else _own(held[0])

    def set(self, value: T) -> None:
        """Keep a value. Raises TypeError for one that is no JSON."""
        made = [as_json(value)]
        self._held.change(self._name)
        self._held.values[self._name] = made

    def clear(self) -> None:
        """Forget it."""
        self._held.change(self._name)
        self._held.values.pop(self._name, None)


class MapState(Handle, Generic[T]):
    """Entries by text, for each key. All of them are written when one changes: for hundreds, not for millions."""

    def _entries(self) -> dict[str, Any]:
        entries: dict[str, Any] = self._held.values.get(self._name, {})
        return entries

    def get(self, entry: str, default: Any = None) -> T | Any:
        """Value of an entry, or `default` as it is given."""
        entries = self._entries()
        return _own(entries[entry]) if entry in entries else default

    def __getitem__(self, entry: str) -> T:
        return typing.cast(T, _own(self._entries()[entry]))

    def __setitem__(self, entry: str, value: T) -> None:
        if not isinstance(entry, str):
            raise TypeError(f"an entry of a MapState is named by a str, not by a {type(entry).__name__}")
        made = as_json(value)
        self._held.change(self._name)
        self._held.values.setdefault(self._name, {})[entry] = made

    def __delitem__(self, entry: str) -> None:
        if entry not in self._entries():
            raise KeyError(entry)
        self._held.change(self._name)
        del self._held.values[self._name][entry]

    def __contains__(self, entry: str) -> bool:
        return entry in self._entries()

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._entries()))

    def __len__(self) -> int:
        return len(self._entries())

    def items(self) -> list[tuple[str, T]]:
        """Entries with their values."""
        return [(entry, _own(value)) for entry, value in self._entries().items()]

    def clear(self) -> None:
        """Forget all entries."""
        self._held.change(self._name)
        self._held.values.pop(self._name, None)


class ListState(Handle, Generic[T]):
    """A list for each key, in the order of its appends. All of it is written when it grows: keep it short."""

    def _items(self) -> list[Any]:
        items: list[Any] = self._held.values.get(self._name, [])
        return items

    def append(self, value: T) -> None:
        """Add a value at the end. Raises TypeError for one that is no JSON."""
        self.extend((value,))

    def extend(self, values: Iterable[T]) -> None:
        """Add several."""
        made = [as_json(value) for value in values]
        self._held.change(self._name)
        self._held.values.setdefault(self._name, []).extend(made)

    def set(self, values: Iterable[T]) -> None:
        """Keep just these."""
        made = [as_json(value) for value in values]
        self._held.change(self._name)
        self._held.values[self._name] = made

    def __getitem__(self, index: int) -> T:
        return typing.cast(T, _own(self._items()[index]))

    def __iter__(self) -> Iterator[T]:
        return iter([_own(value) for value in self._items()])

    def __len__(self) -> int:
        return len(self._items())

    def clear(self) -> None:
        """Forget all values."""
        self._held.change(self._name)
        self._held.values.pop(self._name, None)


class Timers(Handle):
    """Calls of `on_timer` to come, for the key of the record at hand. One for each name: setting it again moves it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._now_ms = 0
        self._rung: Timer | None = None

    def bind(self, held: KeyState, now_ms: int, rung: Timer | None = None) -> None:
        """As for any state."""
        super().bind(held, now_ms)
        self._now_ms, self._rung = now_ms, rung

    @property
    def stream_time(self) -> datetime:
        """The largest event time that the partition has seen."""
        return _EPOCH + self._now_ms * _MS

    def set(self, at: datetime, name: str = "timer", *, clock: Clock = "stream") -> None:
        """Call once stream time, or the wall clock, has come to `at`; at once after this call if it has already.

        A time is that of its millisecond, as those of records are. The wall clock stands still in a replay, and so do
        its timers. Raises ValueError for a time without zone, and in a call of `on_timer` for one that is not after
        the timer's own: that would ring for ever.
        """
        if at.tzinfo is None:
            raise ValueError("a timer needs a time with a zone, as in datetime(..., tzinfo=UTC)")
        if clock not in typing.get_args(Clock):
            raise ValueError(f"clock={clock!r}: use 'stream' or 'wall'")
        at = _EPOCH + (at - _EPOCH) // _MS * _MS
        if self._rung is not None and self._rung.clock == clock and at <= self._rung.at:
            raise ValueError(f"a timer set by on_timer must be later than {self._rung.at}, for which it was called")
        self._held.change("")
        self._held.timers[clock, name] = (at - _EPOCH) // _MS

    def cancel(self, name: str = "timer", *, clock: Clock = "stream") -> None:
        """Do not call after all; nothing happens when it is not set."""
        if (clock, name) in self._held.timers:
            self._held.change("")
            del self._held.timers[clock, name]


KINDS: tuple[type[Handle], ...] = (ValueState, MapState, ListState, Timers)


def asked_states(function: Callable[..., Any]) -> dict[str, type[Handle]]:
    """The states that a function asks for by the annotations of its parameters, by name.

    Raises NameError for an annotation that cannot be resolved.
    """
    hints = typing.get_type_hints(function) if inspect.isfunction(function) or inspect.ismethod(function) else {}
    asked = {}
    for name in [p for p in hints if p != "return"]:
        kind = typing.get_origin(hints[name]) or hints[name]
        if kind in KINDS:
            asked[name] = kind
    return asked
