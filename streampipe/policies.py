"""Small values that say what to do when something is not as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

FailureClass = Literal[
    "deserialization", "schema", "validation", "processing", "timeout", "dependency", "serialization", "oversize",
    "retries_exhausted", "late", "unknown",
]  # fmt: skip
FAILURE_CLASSES: tuple[str, ...] = get_args(FailureClass)
"""The closed set of reasons for a dead letter, also a metric label."""

LatePolicy = Literal["dead_letter", "drop"]
InvalidTimestampPolicy = Literal["dead_letter", "drop"]
EmitPolicy = Literal["final", "updates"]
Guarantee = Literal["exactly-once", "at-least-once"]


class Retryable(Exception):
    """Raised by a handler: the same record may work when tried again."""


class Fatal(Exception):
    """Raised by a handler: stop the processor at this record, commit nothing past it."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Returned by a handler: this record has no output, on purpose. It counts as filtered."""

    reason: str


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a handler is tried when it raises Retryable, with exponential backoff from `backoff_s`.

    The worker does not poll while a handler is retried: attempts and backoff must stay well below the group's
    max.poll.interval (five minutes by default).
    """

    attempts: int = 3
    backoff_s: float = 0.1
    max_backoff_s: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.backoff_s < 0 or self.max_backoff_s < self.backoff_s:
            raise ValueError(f"{self}: attempts >= 1 and 0 <= backoff_s <= max_backoff_s")
