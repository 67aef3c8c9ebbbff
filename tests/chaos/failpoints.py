"""Places in a worker where it can be made to die: at the seams to broker and registry, between any two of their calls.

`CHAOS_FAILPOINT=<point>:<n>` kills the process (SIGKILL, by itself) when it passes the point for the n-th time. It
freezes itself (SIGSTOP) before it sends the next offsets when there is a file `CHAOS_FREEZE`, which it removes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import streampipe.cli.session as cli_session
import streampipe.schemas.registry as registries
from streampipe.records import ProduceBatch, RecordBatch, TopicPartition

VARIABLE, FREEZE = "CHAOS_FAILPOINT", "CHAOS_FREEZE"
REBALANCES = ("in-assigned", "in-revoked")
POINTS = (
    "after-begin", "after-produce", "after-changelog", "after-dead-letters", "after-send-offsets", "before-commit",
    "after-commit", "mid-restore", "in-schema-fetch", *REBALANCES,
)  # fmt: skip
IN_TRANSACTION = POINTS[: POINTS.index("after-commit")]
"""Points at which a transaction is open."""
TIMES = 5
"""So often each is reached in a run that has room for it."""

Fuse = Callable[[str], None]


def install() -> None:
    """Put the fuse that the environment names into every broker and registry that this process opens."""
    fuse = _fuse(os.environ.get(VARIABLE) or "")
    _wrap(cli_session, "open_broker", lambda broker: _Broker(broker, fuse))
    _wrap(registries, "open_registry", lambda registry: _Registry(registry, fuse))


def _wrap(module: ModuleType, opener: str, wrapper: Callable[[Any], object]) -> None:
    original = getattr(module, opener)
    setattr(module, opener, lambda *args, **options: wrapper(original(*args, **options)))


def _fuse(given: str) -> Fuse:
    wanted, _, count = given.partition(":")
    assert not wanted or wanted in POINTS, wanted
    left = int(count or 0)

    def passed(point: str) -> None:
        nonlocal left
        if point == wanted:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    return passed


def _freeze_if_asked() -> None:
    try:
        Path(os.environ[FREEZE]).unlink()
    except (KeyError, FileNotFoundError):
        return
    os.kill(os.getpid(), signal.SIGSTOP)


class _Wrapped:
    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Registry(_Wrapped):
    def by_id(self, schema_id: int) -> str:
        self._fuse("in-schema-fetch")
        return str(self._inner.by_id(schema_id))


class _Broker(_Wrapped):
    def consumer(self, *args: Any, **options: Any) -> Any:
        return _Consumer(self._inner.consumer(*args, **options), self._fuse)

    def producer(self, *args: Any, **options: Any) -> Any:
        return _Producer(self._inner.producer(*args, **options), self._fuse)

    def reader(self, *args: Any, **options: Any) -> Any:
        return _Reader(self._inner.reader(*args, **options), self._fuse)


class _Reader(_Wrapped):
    def poll(self, max_records: int, timeout_s: float) -> list[RecordBatch]:
        batches: list[RecordBatch] = self._inner.poll(max_records, timeout_s)
        if any(batch.topic.endswith("-changelog") for batch in batches):
            self._fuse("mid-restore")
        return batches


class _Consumer(_Wrapped):
    def subscribe(self, topics: Collection[str], listener: Any) -> None:
        self._inner.subscribe(topics, _Listener(listener, self._fuse))


class _Listener(_Wrapped):
    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self._inner.on_assigned(partitions)
        self._fuse("in-assigned")

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self._fuse("in-revoked")
        self._inner.on_revoked(partitions)


class _Producer(_Wrapped):
    def begin(self) -> None:
        self._inner.begin()
        self._fuse("after-begin")

    def produce(self, batch: ProduceBatch) -> None:
        self._inner.produce(batch)
        self._fuse("after-produce")
        if batch.topic.endswith("-changelog"):
            self._fuse("after-changelog")
        elif batch.topic.endswith("-dlq"):
            self._fuse("after-dead-letters")

    def send_offsets(self, offsets: Any, group_metadata: object) -> None:
        _freeze_if_asked()
        self._inner.send_offsets(offsets, group_metadata)
        self._fuse("after-send-offsets")

    def commit(self) -> None:
        self._fuse("before-commit")
        self._inner.commit()
        self._fuse("after-commit")
