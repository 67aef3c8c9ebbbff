"""Aggregates that a user's own function computes, a value at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import orjson
import pyarrow as pa

from streampipe.errors import ProcessingStopped
from streampipe.operators.accumulators.base import ObjectAccumulator
from streampipe.operators.accumulators.fitting import fits
from streampipe.operators.accumulators.plain import Plain
from streampipe.operators.frame import Column
from streampipe.records import IntArray

_STRICT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


class FunctionAccumulator(ObjectAccumulator):
    """Calls a function for each value that is not null. It may raise, so rows go one by one: `following`, `keep`.

    What a slot holds cannot be changed from outside, whatever the function does to what it is given.
    """

    def following(self, slot: int, value: Any) -> Any:
        """What the slot would hold after this value (of `values`). Raises whatever the function raises."""
        raise NotImplementedError

    def merged(self, early: Any, late: Any) -> Any:
        """What a slot would hold that both had been in. Raises whatever the function raises."""
        raise NotImplementedError

    def update(self, slots: IntArray, column: Column | None, timestamps: IntArray) -> None:  # noqa: ARG002
        """Add the rows in order; raises at the first for which the function raises."""
        assert column is not None
        values = Values(column.arrow)
        for row, slot in enumerate(slots.tolist()):
            self.objects[slot] = self.following(slot, values[row])

    def merge(self, into: IntArray, source: IntArray) -> None:
        """Merge. Raises ProcessingStopped when the function fails: no single record is to blame."""
        for slot, other in zip(into.tolist(), source.tolist(), strict=True):
            try:
                self.objects[slot] = self.merged(self.objects[slot], self.objects[other])
            except Exception as error:
                raise ProcessingStopped(
                    f"merging two states of an aggregate ({self.shape}) raised {type(error).__name__}; the function "
                    f"must take any two states that the aggregate can have"
                ) from error


class Reduce(FunctionAccumulator):
    """A value of the column's own type, made of the one before and each next value; null of nothing.

    A slot holds an Arrow scalar: no function can change one, and it comes back from bytes as it was.
    """

    def __init__(self, kind: pa.DataType, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self._plain, self._function = Plain(kind), function
        self.result_type = self._plain.type
        self._fits = fits(self.result_type)

    @property
    def shape(self) -> str:
        """The type; a function cannot be told from another one."""
        return f"reduce {self.result_type}"

    def empty(self) -> None:
        """No value."""

    def dump(self, held: pa.Scalar | None) -> bytes:
        """The value, if any."""
        return b"" if held is None else self._plain.dump(self._plain.values(pa.array([held], self.result_type)))

    def load(self, data: bytes) -> pa.Scalar | None:
        """The value, if any."""
        return self._plain.array(self._plain.load(data))[0] if data else None

    def following(self, slot: int, value: Any) -> Any:
        """The first value, or what the function makes of the one before and this."""
        held = self.objects[slot]
        if value is None:
            return held
        return self._scalar(value if held is None else self._function(held.as_py(), value))

    def merged(self, early: Any, late: Any) -> Any:
        """What the function makes of both."""
        if early is None or late is None:
            return late if early is None else early
        return self._scalar(self._function(early.as_py(), late.as_py()))

    def _scalar(self, value: Any) -> pa.Scalar:
        if value is None or not self._fits(value):
            raise TypeError(f"the function returned {_kind(value)}, which is no {self.result_type}")
        return pa.scalar(value, self.result_type)

    def result(self, slots: IntArray) -> pa.Array:
        """The values."""
        return pa.array([self.objects[slot] for slot in slots.tolist()], self.result_type)


class Fold(FunctionAccumulator):
    """Any state that JSON can say, made of an initial one and each value.

    A slot holds the state as JSON, and the function gets what it says: so no cut into batches, no commit and no
    restart shows, whether a function changes the state it is given or makes a new one.
    """

    def __init__(
        self, init: Any, function: Callable[[Any, Any], Any], merge: Callable[[Any, Any], Any] | None, kind: pa.DataType
    ) -> None:
        self._function, self._merge = function, merge
        self.result_type = kind
        self._fits = fits(kind)
        self._init = self._json(init)
        super().__init__()

    @property
    def shape(self) -> str:
        """The type and the initial state; a function cannot be told from another one."""
        return f"aggregate {self.result_type} {self._init.decode()}"

    def empty(self) -> bytes:
        """The initial state."""
        return self._init

    def dump(self, held: bytes) -> bytes:
        """The state."""
        return held

    def load(self, data: bytes) -> bytes:
        """The state."""
        return data

    def following(self, slot: int, value: Any) -> Any:
        """What the function makes of the state and the value."""
        held = self.objects[slot]
        return held if value is None else self._json(self._function(orjson.loads(held), value))

    def merged(self, early: Any, late: Any) -> Any:
        """What the function for merging makes of both."""
        assert self._merge is not None, "checked at start"
        return self._json(self._merge(orjson.loads(early), orjson.loads(late)))

    def _json(self, state: Any) -> bytes:
        if not self._fits(state):
            raise TypeError(f"the function returned {_kind(state)}, which is no {self.result_type}")
        data = orjson.dumps(state, option=_STRICT)
        if b"null" in data and not _finite(state):
            raise ValueError("the state holds a number that is not finite, which JSON cannot say")
        return data

    def result(self, slots: IntArray) -> pa.Array:
        """The states."""
        return pa.array([orjson.loads(self.objects[slot]) for slot in slots.tolist()], self.result_type)


def _finite(state: Any) -> bool:
    if isinstance(state, dict):
        return all(map(_finite, state.values()))
    if isinstance(state, (list, tuple)):
        return all(map(_finite, state))
    return not isinstance(state, float) or math.isfinite(state)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


class Values(Sequence[Any]):
    """Values of a column for Python, made all at once, or where one is beyond Python's calendar, one by one."""

    def __init__(self, array: pa.Array) -> None:
        self._array = array
        self._made: list[Any] | None = None
        with suppress(OverflowError, ValueError):
            self._made = array.to_pylist()

    def __getitem__(self, row: Any) -> Any:
        """The value of a row. Raises OverflowError or ValueError for one that Python has none for."""
        return self._made[row] if self._made is not None else self._array[row].as_py()

    def __len__(self) -> int:
        return len(self._array)
