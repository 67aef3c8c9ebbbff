"""What a handler takes and gives, by its annotations."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from itertools import repeat
from typing import Any

import pyarrow as pa

from streampipe.errors import TopologyError
from streampipe.keyed_state import KINDS, Handle, Timer, Timers, asked_states
from streampipe.operators.frame import Frame
from streampipe.policies import Skip

Function = Callable[..., Any]


def row_maker(name: str, function: Function, schema: pa.Schema) -> Callable[[Frame], Iterable[Any]]:
    """How a row is handed over: as a dict, or as the dataclass that the function's first annotation names."""
    wanted = _annotations(name, function)[0]
    if wanted is not None and is_dataclass(wanted):
        columns = [f.name for f in fields(wanted)]
        missing = [c for c in columns if c not in schema.names]
        if missing:
            raise TopologyError(
                f"handler {name!r} takes {wanted.__name__}, whose field {missing[0]!r} is not a column here; "
                f"columns: {', '.join(schema.names)}"
            )
        make = typing.cast("Callable[..., Any]", wanted)
        return lambda frame: map(make, *_lists(frame, columns))
    if (
        wanted is not None
        and wanted is not Any
        and typing.get_origin(wanted) not in {dict, None}
        and wanted is not dict
    ):
        raise TopologyError(f"handler {name!r}: its parameter must be a dict or a dataclass, not {wanted}")
    columns = schema.names
    return lambda frame: map(
        dict, map(zip, repeat(columns), zip(*_lists(frame, columns), strict=True))
    )  # all of it in C


def _lists(frame: Frame, columns: list[str]) -> list[list[Any]]:
    # Polars makes Python values several times faster than Arrow, but knows neither maps nor long decimals
    out = []
    for name in columns:
        column = frame.columns[name]
        kind = column.arrow.type
        plain = not (pa.types.is_nested(kind) or pa.types.is_decimal256(kind))
        out.append(column.polars.to_list() if plain else column.arrow.to_pylist())
    return out


def _annotations(name: str, function: Function) -> tuple[type | None, Any]:
    """The type of the first parameter and of the result, None where not annotated."""
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise TopologyError(f"handler {name!r} must be a plain function that returns its events, not async or yielding")
    parameters = list(inspect.signature(function).parameters)
    if not parameters:
        raise TopologyError(f"handler {name!r} must take a parameter, the event")
    try:
        hints, states = typing.get_type_hints(function), asked_states(function)
    except NameError as error:
        raise TopologyError(f"handler {name!r}: its annotations cannot be resolved: {error}") from None
    for parameter in parameters[1:]:
        if parameter not in states:
            kinds = ", ".join(kind.__name__ for kind in KINDS)
            raise TopologyError(
                f"handler {name!r}: its parameter {parameter!r} must be annotated as one of {kinds}; only the first "
                f"one is the event"
            )
    return hints.get(parameters[0]), hints.get("return")


def check_timer_function(name: str, function: Function, on_timer: Function | None) -> dict[str, type[Handle]]:
    """The states that `on_timer` asks for. Raises TopologyError for one that cannot work, or is missing."""
    if on_timer is None:
        if Timers in asked_states(function).values():
            raise TopologyError(f"handler {name!r} asks for Timers; say what to call: handle(..., on_timer=function)")
        return {}
    wanted = _annotations(f"{name}, on_timer", on_timer)[0]
    if wanted not in {None, Any, Timer}:
        raise TopologyError(f"handler {name!r}: on_timer is called with a Timer, not with {wanted}")
    return asked_states(on_timer)


def returned_dataclass(name: str, function: Function) -> type | None:
    """The dataclass that a handler is annotated to return, alone, in a list or beside Skip and None."""
    pending = [_annotations(name, function)[1]]
    while pending:
        hint = pending.pop()
        if isinstance(hint, type) and is_dataclass(hint) and hint is not Skip:
            return hint
        pending += typing.get_args(hint)
    return None
