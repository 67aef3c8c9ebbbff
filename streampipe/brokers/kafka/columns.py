"""confluent-kafka messages as columns. The only place that touches a Message, and it lets none out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias, cast

import numpy as np
from confluent_kafka import Message

from streampipe.records import NO_TIMESTAMP, Headers, IntArray, RecordBatch, no_headers, one_batch

Messages: TypeAlias = list[Message]


_SECOND = itemgetter(1)  # of a timestamp, whose first part is its kind


class _BrokenName:
    """Stands for the headers of a message one of whose header names is not UTF-8."""


_BROKEN = _BrokenName()


def _headers_of(messages: Messages) -> Callable[[int], Headers]:
    """Headers by row, read at once: messages kept for later cost more than asking each whether it has some.

    A header name that is not UTF-8 makes the first call of `Message.headers` raise and a second one crash the process,
    so each message is asked exactly once. The call comes from C (`map`), which is sure to check the exception that
    such a name leaves set; the interpreter's specialised method call is not, and may crash on the broken list.
    """
    known: list[Any] = []
    asked = map(Message.headers, messages)
    while len(known) < len(messages):
        try:
            known.extend(asked)
        except (SystemError, UnicodeError):
            known.append(_BROKEN)
    if not any(known):
        return no_headers

    def headers(row: int) -> Headers:
        found = known[row]
        if found is _BROKEN:
            raise ValueError("a header's name is not UTF-8")
        return cast("Headers", found or ())

    return headers


def read(chunk: Messages, topic: str | None) -> tuple[list[RecordBatch], Messages]:
    """A chunk as runs of one topic each, in order, and its error events; `topic` when all are known to be of it."""
    times = _times(chunk)
    events: Messages = []
    if (times == NO_TIMESTAMP).any():  # as error events have it, and hardly any record
        events = [message for message in chunk if message.error() is not None]
        chunk = [message for message in chunk if message.error() is None]
        times = _times(chunk)
    if topic is not None:
        return ([_batch(topic, chunk, times)] if chunk else []), events
    return list(_runs(chunk, times)), events


def _times(messages: Messages) -> IntArray:
    return np.fromiter(map(_SECOND, map(Message.timestamp, messages)), np.int64, len(messages))


def _runs(messages: Messages, times: IntArray) -> Iterator[RecordBatch]:
    start = 0
    for topic, run in groupby([message.topic() for message in messages]):
        stop = start + sum(1 for _ in run)
        yield _batch(str(topic), messages[start:stop], times[start:stop])
        start = stop


def _batch(topic: str, messages: Messages, times: IntArray) -> RecordBatch:
    n = len(messages)
    return RecordBatch(
        topic,
        np.fromiter(map(Message.partition, messages), np.int64, n),
        np.fromiter(map(Message.offset, messages), np.int64, n),
        times,
        list(map(Message.key, messages)),
        list(map(Message.value, messages)),
        _headers_of(messages),
    )


def joined(parts: Sequence[RecordBatch]) -> list[RecordBatch]:
    """Neighbouring runs of the same topic as one, so that a poll of many chunks is one batch."""
    return [one_batch(list(run)) for _, run in groupby(parts, key=lambda batch: batch.topic)]
