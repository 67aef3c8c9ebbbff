"""Plain Python functions as operators: rows out of columns, one call a row, columns out of what came back."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import tenacity

from streampipe.errors import ProcessingStopped, TopologyError
from streampipe.operators.effects import Effects, Reason, Step, positions
from streampipe.operators.frame import Column, Frame
from streampipe.policies import Fatal, Retry, Retryable, Skip

Function = Callable[[Any], Any]


class FunctionStep(Step):
    """Calls the function with each row. Rows whose call failed are dead letters, those that gave nothing filtered."""

    def __init__(
        self,
        name: str,
        effects: Effects,
        function: Function,
        retry: Retry,
        schema: pa.Schema,
        output: pa.Schema,
        sleep: Callable[[float], None],
    ) -> None:
        super().__init__(name, effects)
        self.schema = output
        self._function = function
        self._rows = _row_maker(name, function, schema)
        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retry.attempts),
            wait=tenacity.wait_exponential(multiplier=retry.backoff_s, max=retry.max_backoff_s),
            retry=tenacity.retry_if_exception_type(Retryable),
            sleep=sleep,
            reraise=True,
        )
        self._attempts = retry.attempts

    def process(self, frame: Frame) -> None:
        """Call for each row, in order."""
        events: list[Any] = []
        rows: list[int] = []
        failed: dict[int, Reason] = {}
        function = self._function
        for position, row in enumerate(self._rows(frame)):
            try:
                result = function(row)
            except Exception as error:  # noqa: BLE001 - whatever user code raises is this record's fate, not ours
                result = self._again_or_fail(frame, position, row, error, failed)
            if result is None or type(result) is Skip:
                continue
            if type(result) is list:
                events += result
                rows += [position] * len(result)
            else:
                events.append(result)
                rows.append(position)
        if failed:
            self.effects.dead_letters(frame, positions(failed), self.name, failed.__getitem__)
        if events:
            self._emit(frame, events, positions(rows))

    def _again_or_fail(self, frame: Frame, position: int, row: Any, error: Exception, failed: dict[int, Reason]) -> Any:
        attempts = 1
        if isinstance(error, Retryable) and self._attempts > 1:
            try:
                result = self._retrying.copy(stop=tenacity.stop_after_attempt(self._attempts - 1))(self._function, row)
            except Exception as last:  # noqa: BLE001 - as above
                error, attempts = last, self._attempts
            else:
                return result
        if isinstance(error, Fatal):
            record, _ = frame.origin.record(int(frame.indexes[position]), frame.columns, position)
            raise ProcessingStopped(
                f"handler {self.name!r} raised Fatal at {record.topic}[{record.partition}]@{record.offset}: {error}"
            ) from error
        failed[position] = _reason(error, attempts)
        return None

    def _emit(self, frame: Frame, events: list[Any], rows: np.ndarray) -> None:
        arrays, bad = _columns(events, self.schema)
        if bad:
            self.effects.dead_letters(frame, rows[positions(bad)], self.name, _reasons_at(rows, bad))
            kept = np.ones(len(events), np.bool_)
            kept[list(bad)] = False
            rows = rows[kept]
        taken = frame.indexes[rows]
        columns = {n: Column(arrow=a) for n, a in zip(self.schema.names, arrays, strict=True)}
        self.emit(Frame(columns, frame.origin, taken))


def _reason(error: Exception, attempts: int) -> Reason:
    if isinstance(error, Retryable):
        failure_class = "retries_exhausted"
    elif isinstance(error, TimeoutError):
        failure_class = "timeout"
    else:
        failure_class = "processing"
    # the text of a foreign exception may quote the payload, so only its type and place are kept
    return Reason(failure_class, type(error).__name__, _place(error), {"attempt": str(attempts)})


def _place(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "raised by the handler"
    code = trace.tb_frame.f_code
    return f"raised in {code.co_name}, {code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"


def _reasons_at(rows: np.ndarray, bad: dict[int, str]) -> Callable[[int], Reason]:
    by_position = {int(rows[event]): why for event, why in bad.items()}
    return lambda position: Reason("serialization", "TypeError", by_position[position])


def _row_maker(name: str, function: Function, schema: pa.Schema) -> Callable[[Frame], Iterable[Any]]:
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
    return lambda frame: [dict(zip(columns, row, strict=True)) for row in zip(*_lists(frame, columns), strict=True)]


def _lists(frame: Frame, columns: list[str]) -> list[list[Any]]:
    # Polars makes Python values several times faster than Arrow, but knows neither maps nor general unions
    out = []
    for name in columns:
        column = frame.columns[name]
        plain = not pa.types.is_nested(column.arrow.type)
        out.append(column.polars.to_list() if plain else column.arrow.to_pylist())
    return out


def _annotations(name: str, function: Function) -> tuple[type | None, Any]:
    """The type of the first parameter and of the result, None where not annotated."""
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) != 1:
        raise TopologyError(f"handler {name!r} must take one parameter, the event; it takes {len(parameters)}")
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise TopologyError(f"handler {name!r}: its annotations cannot be resolved: {error}") from None
    return hints.get(parameters[0]), hints.get("return")


def returned_dataclass(name: str, function: Function) -> type | None:
    """The dataclass that a handler is annotated to return, alone, in a list or beside Skip and None."""
    pending = [_annotations(name, function)[1]]
    while pending:
        hint = pending.pop()
        if isinstance(hint, type) and is_dataclass(hint) and hint is not Skip:
            return hint
        pending += typing.get_args(hint)
    return None


def _columns(events: list[Any], schema: pa.Schema) -> tuple[list[pa.Array], dict[int, str]]:
    """Columns of the events that fit the schema, and why the others do not, by index of the event."""
    bad = {i: why for i, e in enumerate(events) if (why := _misfit(e))}
    good = [e for i, e in enumerate(events) if i not in bad]
    try:
        return _arrays(good, schema), bad
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    for i, event in enumerate(events):
        if i in bad:
            continue
        try:
            _arrays([event], schema)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            bad[i] = f"the event does not fit the output schema ({type(error).__name__})"
    return _arrays([e for i, e in enumerate(events) if i not in bad], schema), bad


def _misfit(event: Any) -> str | None:
    if isinstance(event, dict) or is_dataclass(event):
        return None
    return f"a handler returns a dict, a dataclass, a list of them, Skip or None, not {type(event).__name__}"


def _arrays(events: list[Any], schema: pa.Schema) -> list[pa.Array]:
    arrays = []
    for field in schema:
        name = field.name
        values = [e.get(name) if type(e) is dict else getattr(e, name, None) for e in events]
        arrays.append(pa.array(values, field.type))
    return arrays
