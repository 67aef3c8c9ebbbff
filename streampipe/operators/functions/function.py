"""Plain Python functions as operators: rows out of columns, one call a row, columns out of what came back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import tenacity

from streampipe.blame import users_line
from streampipe.errors import ProcessingStopped, StateLost
from streampipe.operators.effects import Effects, Reason, Step, positions
from streampipe.operators.frame import Column, Frame
from streampipe.operators.functions.signature import Function, row_maker
from streampipe.operators.isolate import FAILURES, failing_rows
from streampipe.policies import Fatal, Retry, Retryable, Skip

_WHOLE = frozenset({int, type(None), datetime, date, time})
_FRACTIONAL = (float, np.floating, Decimal)


@dataclass(slots=True)
class Calls:
    """What came of the calls for one frame: events, the row that each came of, and why rows failed."""

    events: list[Any] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    failed: dict[int, Reason] = field(default_factory=dict)

    def add(self, result: Any, source: int) -> None:
        """Keep what a function returned."""
        if result is None or type(result) is Skip:
            return
        made = result if type(result) is list else [result]
        self.events += made
        self.sources += [source] * len(made)


class FunctionStep(Step):
    """Calls the function with each row. Rows whose call failed are dead letters, those that gave nothing filtered.

    `output` are the columns of its events, `defaults` what stands for a field that an event leaves out.
    """

    def __init__(
        self,
        name: str,
        effects: Effects,
        function: Function,
        retry: Retry,
        schema: pa.Schema,
        output: pa.Schema,
        defaults: Mapping[str, Any],
        sleep: Callable[[float], None],
    ) -> None:
        super().__init__(name, effects)
        self.schema, self._defaults = output, defaults
        self._function = function
        self._rows = row_maker(name, function, schema)
        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(retry.attempts),
            wait=tenacity.wait_exponential(multiplier=retry.backoff_s, max=retry.max_backoff_s),
            retry=tenacity.retry_if_exception_type(Retryable),
            sleep=sleep,
            reraise=True,
        )

    def process(self, frame: Frame) -> None:
        """Call for each row, in order."""
        frame, rows = self._readable(frame)
        calls = Calls()
        self._call(frame, rows, calls)
        if calls.failed:
            self.effects.dead_letters(frame, positions(calls.failed), self.name, calls.failed.__getitem__)
        if calls.events:
            self._emit(frame, calls.events, calls.sources)

    def _call(self, frame: Frame, rows: Iterable[Any], calls: Calls) -> None:
        events, sources, failed = calls.events, calls.sources, calls.failed
        function, following = self._function, iter(rows).__next__
        for position in range(len(frame)):
            try:
                row = following()
            except (ProcessingStopped, StateLost):  # of a timer that was due before
                raise
            except Exception as error:  # noqa: BLE001 - a dataclass may refuse its values as it likes
                self._fail(frame, position, error, 1, failed)
                continue
            try:
                result = function(row)
            except Exception as error:  # noqa: BLE001 - whatever user code raises is this record's fate, not ours
                result = self._again_or_fail(function, frame, position, row, error, failed)
            if result is None or type(result) is Skip:
                continue
            if type(result) is list:
                events += result
                sources += [position] * len(result)
            else:
                events.append(result)
                sources.append(position)

    def _readable(self, frame: Frame) -> tuple[Frame, Iterable[Any]]:
        """The rows that Python has values for, as Python values. Its calendar ends where that of Avro does not."""
        try:
            return frame, self._rows(frame)
        except FAILURES:
            failed = failing_rows(frame, self._rows)
        reason = Reason("processing", "OverflowError", "a column holds a value that Python has none for")
        self.effects.dead_letters(frame, positions(failed), self.name, lambda _: reason)
        kept = np.ones(len(frame), np.bool_)
        kept[list(failed)] = False
        frame = frame.filter(kept)
        return frame, self._rows(frame)

    def _again_or_fail(
        self, function: Function, frame: Frame, position: int, given: Any, error: Exception, failed: dict[int, Reason]
    ) -> Any:
        if not isinstance(error, Retryable):
            return self._fail(frame, position, error, 1, failed)
        first = [error]

        def call() -> Any:
            if first:
                raise first.pop()
            return function(given)

        retrying = self._retrying.copy()
        try:
            return retrying(call)
        except Exception as last:  # noqa: BLE001 - as above
            return self._fail(frame, position, last, retrying.statistics["attempt_number"], failed)

    def _fail(self, frame: Frame, position: int, error: Exception, attempts: int, failed: dict[int, Reason]) -> None:
        if isinstance(error, Fatal):
            record, _ = frame.origin.record(int(frame.indexes[position]), frame.columns, position)
            raise ProcessingStopped(
                f"handler {self.name!r} raised Fatal at {record.topic}[{record.partition}]@{record.offset}: {error}"
            ) from error
        failed[position] = _reason(error, attempts)

    def _emit(self, frame: Frame, events: list[Any], sources: list[int]) -> None:
        """Hand the events on. A record with one that does not fit is a dead letter, and none of its events goes on."""
        try:
            arrays = [self._array(f, events) for f in self.schema]
        except Exception:  # noqa: BLE001 - events are user objects, and reading them is user code
            unfit: dict[int, Reason] = {}
            for source, event in zip(sources, events, strict=True):
                if source not in unfit and (reason := self._misfit(event)):
                    unfit[source] = reason
            self.effects.dead_letters(frame, positions(unfit), self.name, unfit.__getitem__)
            events = [e for e, source in zip(events, sources, strict=True) if source not in unfit]
            sources = [source for source in sources if source not in unfit]
            arrays = [self._array(f, events) for f in self.schema]
        columns = {n: Column(arrow=a) for n, a in zip(self.schema.names, arrays, strict=True)}
        self.emit(Frame(columns, frame.origin, frame.indexes[positions(sources)]))

    def _array(self, field: pa.Field, events: list[Any]) -> pa.Array:
        name, default = field.name, self._defaults.get(field.name)
        values = [e.get(name, default) if type(e) is dict else _attribute(e, name, default) for e in events]
        _refuse_fractions(values, field.type)
        array = pa.array(values, field.type)
        if array.null_count and not field.nullable:
            raise ValueError(f"field {name!r} is null")
        return array

    def _misfit(self, event: Any) -> Reason | None:
        for column in self.schema:
            try:
                self._array(column, [event])
            except Exception as error:  # noqa: BLE001 - as above
                message = f"field {column.name!r} does not fit its type, {column.type}"
                if not _is_event(event):
                    message = f"a handler returns a dict, a dataclass, a list of them, Skip or None, not {_kind(event)}"
                return Reason("serialization", type(error).__name__, message)
        return None


def _is_event(value: Any) -> bool:
    return isinstance(value, dict) or (is_dataclass(value) and not isinstance(value, type))


def _kind(value: Any) -> str:
    return type(value).__name__


def _attribute(event: Any, name: str, default: Any) -> Any:
    if isinstance(event, dict):
        return event.get(name, default)
    if not _is_event(event):
        raise TypeError(f"a {_kind(event)} is no event")
    return getattr(event, name, default)


def _refuse_fractions(values: list[Any], kind: pa.DataType) -> None:
    """Arrow cuts the fraction off a float that goes into an integer or a time, which must not pass unseen."""
    if pa.types.is_integer(kind) or pa.types.is_temporal(kind):
        if not _WHOLE.issuperset(map(type, values)) and any(isinstance(v, _FRACTIONAL) for v in values):
            raise TypeError("a number with a fraction where a whole number is needed")
    elif pa.types.is_struct(kind):
        inner = [v for v in values if isinstance(v, dict)]
        for field in kind:
            _refuse_fractions([v.get(field.name) for v in inner], field.type)
    elif pa.types.is_map(kind):
        pairs = [v.items() if isinstance(v, dict) else v for v in values if v is not None]
        _refuse_fractions([value for pair in pairs for _, value in pair], kind.item_type)
    elif pa.types.is_list(kind):
        _refuse_fractions([item for v in values if v is not None for item in v], kind.value_type)


def _reason(error: Exception, attempts: int) -> Reason:
    if isinstance(error, Retryable):
        failure_class = "retries_exhausted"
    elif isinstance(error, TimeoutError):
        failure_class = "timeout"
    else:
        failure_class = "processing"
    # the text of a foreign exception may quote the payload, so only its type and place are kept
    return Reason(failure_class, type(error).__name__, place(error), {"attempt": str(attempts)})


def place(error: Exception) -> str:
    """Where an exception was raised, in the user's code if it came through that: function, file and line."""
    where = users_line(error)
    if where is None:
        return "raised by the handler"
    code, line = where
    return f"raised in {code.co_name}, {code.co_filename.rsplit('/', 1)[-1]}:{line}"
