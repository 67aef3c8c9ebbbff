"""Where records come in and go out: sources, sinks and repartition topics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import pyarrow as pa

from streampipe.errors import TopologyError
from streampipe.operators.effects import DROPPED, Effects, Reason, Step
from streampipe.operators.frame import Column, Frame, Mask, Origin
from streampipe.operators.grouping import as_physical, key_bytes
from streampipe.operators.stream_time import LAST_TIME, NEVER
from streampipe.policies import InvalidTimestampPolicy
from streampipe.records import IntArray, RecordBatch
from streampipe.schemas.port import Decoded, Decoder, Encoder, Failure
from streampipe.topology.nodes import Key


def failure_reason(failure: Failure) -> Reason:
    """A codec's failure as the reason of a dead letter."""
    details = {} if failure.schema_id is None else {"schema.id": str(failure.schema_id)}
    return Reason(failure.failure_class, failure.exception, failure.message, details)


def report_failures(effects: Effects, frame: Frame, stage: str, failures: list[Failure]) -> None:
    """Rows that a codec refused become dead letters."""
    if failures:
        by_row = {failure.row: failure for failure in failures}
        rows = np.array(sorted(by_row), np.int64)
        effects.dead_letters(frame, rows, stage, lambda row: failure_reason(by_row[row]))


def refuse(effects: Effects, frame: Frame, bad: Mask, stage: str, rule: str) -> Frame:
    """The rows that are not bad; the others are dead letters that name the rule, `key` or `timestamp`."""
    if not bad.any():
        return frame
    message = f"{rule} is {'null' if rule == 'key' else 'negative'} or cannot be used"
    reason = Reason("validation", "ValidationError", message, {"rule": rule})
    effects.dead_letters(frame, np.flatnonzero(bad), stage, lambda _: reason)
    return frame.filter(~bad)


@dataclass(frozen=True, slots=True)
class Times:
    """What the event time of records is, and which times will do; see `topology.nodes.Source`."""

    column: str | None = None
    max_ahead_ms: int | None = None
    invalid: InvalidTimestampPolicy | None = None


class SourceStep(Step):
    """Decodes values into columns. Bad values are dead letters; tombstones carry no columns and are dropped."""

    def __init__(self, name: str, effects: Effects, decoder: Decoder, times: Times | None = None) -> None:
        super().__init__(name, effects)
        self._decoder = decoder
        self._times = times or Times()
        self.schema: pa.Schema = decoder.arrow
        if self._times.column is not None:
            _check_event_time(name, self._times.column, self.schema)

    def decode(self, batch: RecordBatch) -> Decoded:
        """Decode, without any effect yet. Raises Unavailable."""
        return self._decoder.decode(batch.values)

    def times(self, batch: RecordBatch, now_ms: int | None) -> IntArray:
        """The event time of each record in ms, NEVER where there is none or it will not do. Raises Unavailable."""
        times, column = batch.timestamps, self._times.column
        if column is not None:
            decoded = self.decode(batch)
            frame = Frame.of(decoded.columns, Origin.of(batch), decoded.rows)
            times = np.full(len(batch), NEVER)
            times[frame.indexes] = _milliseconds(frame.columns[column])
        bad = (times < 0) | (times >= LAST_TIME)
        if self._times.max_ahead_ms is not None and now_ms is not None:
            bad |= times > now_ms + self._times.max_ahead_ms
        return np.where(bad, NEVER, times)

    def feed(self, origin: Origin, decoded: Decoded) -> None:
        """Process what `decode` gave."""
        report_failures(self.effects, Frame({}, origin), self.name, decoded.failures)
        if decoded.tombstones is not None:
            origin.mark(decoded.tombstones, DROPPED)
        frame = Frame.of(decoded.columns, origin, decoded.rows)
        if len(frame):
            self.process(frame)

    def process(self, frame: Frame) -> None:
        """Take event time from its column, if one is named, and let only usable times through."""
        column, policy = self._times.column, self._times.invalid
        times = frame.timestamps if column is None else _milliseconds(frame.columns[column])
        if column is not None or policy is not None:
            rule = "timestamp" if column is None else "event_time"
            frame, times = self._refuse(frame, times, times < 0, rule, "is null or negative")
        if self._times.max_ahead_ms is not None and self.effects.now_ms is not None:
            ahead = times > self.effects.now_ms + self._times.max_ahead_ms
            frame, times = self._refuse(frame, times, ahead, "max_ahead", "is too far ahead of the clock")
        if column is not None:
            frame.origin.timestamps = frame.origin.timestamps.copy()
            frame.origin.timestamps[frame.indexes] = times
            frame = Frame(frame.columns, frame.origin, frame.rows)
        self.emit(frame)

    def _refuse(self, frame: Frame, times: IntArray, bad: Mask, rule: str, what: str) -> tuple[Frame, IntArray]:
        """The rows whose time can be used; the others go by policy before they could move stream time."""
        if not bad.any():
            return frame, times
        rows = np.flatnonzero(bad)
        if self._times.invalid == "drop":
            frame.origin.mark(frame.indexes[rows], DROPPED)
            self.effects.invalid_drops[self.name] += len(rows)
        else:
            name = "timestamp" if self._times.column is None else f"event time {self._times.column!r}"
            reason = Reason("validation", "ValidationError", f"{name} {what}", {"rule": rule})
            self.effects.dead_letters(frame, rows, self.name, lambda _: reason)
        return frame.filter(~bad), times[~bad]


def _check_event_time(name: str, column: str, schema: pa.Schema) -> None:
    if column not in schema.names:
        raise TopologyError(f"source {name!r}: event_time column {column!r} is not among {', '.join(schema.names)}")
    kind = schema.field(column).type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind)):
        raise TopologyError(
            f"source {name!r}: event_time column {column!r} is {kind}; it must be a timestamp, a date or milliseconds"
        )


_PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}


def _milliseconds(column: Column) -> IntArray:
    """Times as int64 milliseconds, -1 for null."""
    kind = column.arrow.type
    physical = as_physical(column.arrow).cast(pa.int64()).fill_null(-1)
    times: IntArray = physical.to_numpy(zero_copy_only=False)
    if pa.types.is_date32(kind):
        return times * 86_400_000
    # floor, since Arrow's own cast would make the microsecond before the epoch a valid 0
    return times // _PER_MS[kind.unit] if pa.types.is_timestamp(kind) else times


RETRACTED = "retracted"
"""Boolean column of results that may be taken back: true where one is, and null all columns but its key's."""


class SinkStep(Step):
    """Encodes columns and writes them, keyed as the records are. What cannot be encoded is a dead letter."""

    def __init__(
        self, name: str, effects: Effects, topic: str, encoder: Encoder, new_key: Key | None = None, *,
        table: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(name, effects)
        self._topic, self._table = topic, table
        self._encoder = encoder
        self._new_key = new_key

    def process(self, frame: Frame) -> None:
        """Encode and produce; rows of a table that are taken back become tombstones."""
        if not self._table:
            rows, encoded = self._encoded(frame)
            self._produce(frame if rows is None else frame.take(rows), encoded)
            return
        gone = frame.columns[RETRACTED].arrow.to_numpy(zero_copy_only=False)
        live = np.flatnonzero(~gone)
        rows, encoded = self._encoded(frame.filter(~gone))
        values = dict.fromkeys(np.flatnonzero(gone).tolist()) | dict(
            zip((live if rows is None else live[rows]).tolist(), encoded, strict=True)
        )
        kept = sorted(values)
        self._produce(frame.take(np.array(kept, np.int64)), [values[row] for row in kept])

    def _encoded(self, frame: Frame) -> tuple[IntArray | None, list[bytes]]:
        """The rows that can be encoded (None: all), and their values."""
        wanted = [n for n in self._encoder.arrow.names if n in frame.columns]
        # at least one column, since a batch of none has no rows even where every field has a default
        encoded = self._encoder.encode(frame.arrow(wanted or list(frame.columns)[:1]))
        report_failures(self.effects, frame, self.name, encoded.failures)
        if encoded.rows is None:
            return None, encoded.values
        # a record whose events do not all fit gives none of them, as a handler's output is all or nothing
        whole = ~np.isin(frame.indexes[encoded.rows], frame.indexes[[f.row for f in encoded.failures]])
        return encoded.rows[whole], list(compress(encoded.values, whole.tolist()))

    def _produce(self, frame: Frame, values: Sequence[bytes | None]) -> None:
        if not values:
            return
        keys = frame.keys() if self._new_key is None else key_bytes({c: frame.columns[c] for c in self._new_key})
        self.effects.produce(self._topic, frame, keys, values)
