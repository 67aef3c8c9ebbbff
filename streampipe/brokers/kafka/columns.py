"""confluent-kafka messages as columns. The only place that touches a Message, and it lets none out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import methodcaller
from typing import TypeAlias, cast

import numpy as np
from confluent_kafka import Message

from streampipe.records import NO_TIMESTAMP, Headers, IntArray, RecordBatch

Messages: TypeAlias = list[Message]

_HEADERS = methodcaller("headers")
"""Not `message.headers()`: on a bad name that returns a broken list *and* leaves an exception set, which only a call
from C is sure to check; the interpreter's specialised call goes on and may crash the process on the list."""


class LazyHeaders:
    """Reads the headers of a row when asked for, and asks librdkafka exactly once per message.

    A header name that is not UTF-8 makes the first call of `Message.headers` raise and the second one crash the
    process: hence the memory, of failures as well.
    """

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self._known: dict[int, Headers | None] = {}

    def __call__(self, row: int) -> Headers:
        """Headers of `row`; raises ValueError when a name is not UTF-8."""
        if row not in self._known:
            self._known[row] = _read_headers(self._messages[row])
        headers = self._known[row]
        if headers is None:
            raise ValueError("a header's name is not UTF-8")
        return headers


def _read_headers(message: Message) -> Headers | None:
    try:
        return cast("Headers", _HEADERS(message) or ())
    except (SystemError, UnicodeError):
        return None


def read(chunk: Messages, topic: str | None) -> tuple[list[RecordBatch], Messages]:
    """A chunk as runs of one topic each, in order, and its error events; `topic` when all are known to be of it."""
    times = [message.timestamp()[1] for message in chunk]
    events: Messages = []
    if NO_TIMESTAMP in times:  # as error events have it, and hardly any record
        events = [message for message in chunk if message.error() is not None]
        chunk = [message for message in chunk if message.error() is None]
        times = [message.timestamp()[1] for message in chunk]
    if topic is not None:
        return ([_batch(topic, chunk, times)] if chunk else []), events
    return list(_runs(chunk, times)), events


def _runs(messages: Messages, times: list[int]) -> Iterator[RecordBatch]:
    start = 0
    for topic, run in groupby([message.topic() for message in messages]):
        stop = start + sum(1 for _ in run)
        yield _batch(str(topic), messages[start:stop], times[start:stop])
        start = stop


def _batch(topic: str, messages: Messages, times: list[int]) -> RecordBatch:
    n = len(messages)
    return RecordBatch(
        topic,
        np.fromiter([m.partition() for m in messages], np.int64, n),
        np.fromiter([m.offset() for m in messages], np.int64, n),
        np.fromiter(times, np.int64, n),
        [m.key() for m in messages],
        [m.value() for m in messages],
        LazyHeaders(messages),
    )


def joined(parts: Sequence[RecordBatch]) -> list[RecordBatch]:
    """Neighbouring runs of the same topic as one, so that a poll of many chunks is one batch."""
    return [_join(list(run)) for _, run in groupby(parts, key=lambda batch: batch.topic)]


def _join(run: list[RecordBatch]) -> RecordBatch:
    if len(run) == 1:
        return run[0]
    sizes = np.cumsum([0, *map(len, run)])

    def headers(row: int) -> Headers:
        part = int(np.searchsorted(sizes, row, side="right")) - 1
        return run[part].headers(row - int(sizes[part]))

    return RecordBatch(
        run[0].topic,
        _concatenated([part.partitions for part in run]),
        _concatenated([part.offsets for part in run]),
        _concatenated([part.timestamps for part in run]),
        [key for part in run for key in part.keys],
        [value for part in run for value in part.values],
        headers,
    )


def _concatenated(columns: list[IntArray]) -> IntArray:
    return np.concatenate(columns)
