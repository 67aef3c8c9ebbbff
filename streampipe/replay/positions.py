"""Where in a topic: a time, an offset, its first or its last record, as people write them and as offsets."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from streampipe.brokers.port import Admin
from streampipe.errors import ConfigError
from streampipe.records import TopicPartition

FIRST_EPOCH_MS = 100_000_000_000
"""A bare number from here on (March 1973 in milliseconds) is a time, a smaller one an offset."""
UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)(?:\s+ago)?")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in every partition: of `kind` time in milliseconds since the epoch, or of kind offset."""

    kind: Literal["earliest", "latest", "time", "offset"]
    value: int = 0

    def __str__(self) -> str:
        if self.kind == "time":
            return datetime.fromtimestamp(self.value / 1000, UTC).isoformat(timespec="milliseconds")
        return f"offset {self.value:,}" if self.kind == "offset" else self.kind


EARLIEST = Position("earliest")
LATEST = Position("latest")


def parse_position(text: str, now_ms: int) -> Position:
    """A position from text: earliest, latest, an ISO-8601 time (naive ones are UTC), `2h ago`, milliseconds since
    the epoch, an offset, or `offset:N` for an offset as large as a time. Raises ConfigError."""
    words = text.strip()
    if words in ("earliest", "latest"):
        return Position("earliest" if words == "earliest" else "latest")
    kind, _, number = words.rpartition(":")
    if number.isdigit() and kind in ("", "offset"):
        value = int(number)
        return Position("offset", value) if kind or value < FIRST_EPOCH_MS else Position("time", value)
    if ago := _AGO.fullmatch(words):
        return Position("time", now_ms - int(float(ago[1]) * UNITS_MS[ago[2]]))
    try:
        moment = datetime.fromisoformat(words)
    except ValueError:
        raise ConfigError(
            f"{text!r} is no place in a topic: say earliest, latest, a time such as 2024-01-31T06:00, 2h ago, "
            f"or an offset"
        ) from None
    return Position("time", round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))


def offsets_at(admin: Admin, partitions: Collection[TopicPartition], position: Position) -> dict[TopicPartition, int]:
    """The offset of a position in each partition, within what is there. Raises UnknownTopic."""
    if position.kind in ("earliest", "latest"):
        return admin.offsets(partitions, "earliest" if position.kind == "earliest" else "latest")
    if position.kind == "time":
        return admin.offsets(partitions, position.value)
    first, last = admin.offsets(partitions, "earliest"), admin.offsets(partitions, "latest")
    return {p: min(max(position.value, first[p]), last[p]) for p in partitions}
