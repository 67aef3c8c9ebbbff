"""Steps with state, apart by partition: what the task may ask of them, whatever they compute."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Literal

import numpy as np

from streampipe.operators.effects import Step
from streampipe.records import ProduceBatch, RecordBatch
from streampipe.state.kept import Mark
from streampipe.state.port import StateStore, Stores, put_named

AT_ONCE = 20_000
"""Entries of a restored store that are looked at together: bounds memory where not all of them stay there."""


class StatefulStep(Step):
    """A step whose state is read back from a topic of its own when a partition comes.

    For each partition the task calls `open`, `restore` for what the topic holds, `restored`, and only then hands over
    records of it; `close` when it goes. `flush` comes before each commit.
    """

    changelog: str
    """Topic that the state is read back from."""
    upto: ClassVar[Literal["end", "committed"]] = "end"
    """How far: see `runtime.port.Restore`."""
    timed: bool = False
    """Whether something of it waits for time to pass: what `advance` and `close_all` are for."""
    clocked: bool = False
    """Whether something of it waits for the wall clock itself: what `tick` is for."""
    idle_after_s: float | None = 30.0
    """For how long a partition must be silent before stream time follows the wall clock; None: it never does."""

    json_columns: Collection[str] = ()
    """Columns of what `show` emits that are JSON: of no type that could be told before."""

    def hold_time(self) -> None:
        """Records of several topics come, one topic after the other: stream time stands until `go_on`."""

    def go_on(self) -> None:
        """All of them have come: what their time puts an end to is over."""

    def open(self, partition: int) -> None:
        """Take a partition on, its state empty, or as it was kept."""
        raise NotImplementedError

    def mark(self, partition: int) -> Mark | None:
        """How far the state goes that an opened partition came with; None: it is empty."""
        raise NotImplementedError

    def forget_kept(self, partition: int) -> None:
        """What an opened partition came with is not to be used."""
        raise NotImplementedError

    @property
    def keeps(self) -> bool:
        """Whether state can be kept when a partition goes."""
        raise NotImplementedError

    replicates: bool = False
    """Whether `replica` and `lend` mean something."""

    def replica(self, partition: int) -> StateStore:
        """A store for the changelog of a partition that others own, as it is here now."""
        raise NotImplementedError

    def lend(self, partition: int, replica: StateStore, mark: Mark) -> None:
        """The partition is to be opened with this replica next, which goes up to `mark`."""
        raise NotImplementedError

    def keep(self, partition: int, mark: Mark) -> None:
        """Leave the state of a partition for whoever opens it next. All of it is flushed; `close` comes next.

        Raises OSError.
        """
        raise NotImplementedError

    def restore(self, partition: int, batch: RecordBatch) -> None:
        """Apply records of the changelog, in order. Raises StateCorrupted."""
        raise NotImplementedError

    def restored(self, partition: int) -> None:
        """All of a partition's changelog has been applied. Raises StateCorrupted."""

    def close(self, partition: int) -> None:
        """Let a partition go, with all that is not flushed."""
        raise NotImplementedError

    def flush(self) -> None:
        """Emit what waits for the commit, and put changed state into the changelog."""

    def advance(self, now_ms: int, idle: Collection[int]) -> None:
        """Stream time of these idle partitions follows the wall clock."""

    def tick(self, now_ms: int, partitions: Collection[int]) -> None:
        """The wall clock goes on; called about once a second with partitions that have nothing else to do."""

    def show(self, partition: int) -> None:
        """Emit what a partition holds as it stands: a row for each key, or key and window.

        For a look at state, in a task that processes nothing. Changes nothing.
        """
        raise NotImplementedError

    def close_all(self) -> None:
        """Let everything that waits for stream time happen, as at the end of a finished input."""


class StoredStep(StatefulStep):
    """A step with a store for each partition, written together with the changelog."""

    replicates = True
    _stores: Stores
    _open: dict[int, StateStore]
    _in_memory: bool = False
    """Whether all of the state is in memory anyway, wherever stores are."""

    def _log(self, partitions: list[int], keys: list[bytes], values: list[bytes | None]) -> None:
        """Write entries to stores and changelog; no value deletes."""
        if not keys:
            return
        self.effects.changelog.append(ProduceBatch(self.changelog, keys, values, None, partitions))
        self._store(partitions, keys, values)

    def _store(self, partitions: list[int], keys: list[bytes], values: list[bytes | None]) -> None:
        of_row = np.array(partitions)
        for partition in set(partitions):
            rows = np.flatnonzero(of_row == partition).tolist()
            self._open[partition].put_many([keys[i] for i in rows], [values[i] for i in rows])

    def open(self, partition: int) -> None:
        """Take a partition on, its state empty."""
        self._open[partition] = self.replica(partition)

    def replica(self, partition: int) -> StateStore:
        """A store for the changelog."""
        return self._stores.open(self.name, partition, in_memory=self._in_memory)

    def lend(self, partition: int, replica: StateStore, mark: Mark) -> None:
        """Open it with this store next."""
        self._stores.lend(self.name, partition, replica, mark)

    def mark(self, partition: int) -> Mark | None:
        """How far the store goes that was opened."""
        return self._open[partition].mark

    def forget_kept(self, partition: int) -> None:
        """Empty the store."""
        self._open[partition].clear()

    @property
    def keeps(self) -> bool:
        """Whether stores can be kept."""
        return self._stores.keeps

    def keep(self, partition: int, mark: Mark) -> None:
        """Keep the store."""
        self._open[partition].keep(mark)

    def restore(self, partition: int, batch: RecordBatch) -> None:
        """Apply changelog records."""
        put_named(self._open[partition], batch.keys, batch.values)

    def close(self, partition: int) -> None:
        """Let a partition go, with all that is not flushed."""
        if (store := self._open.pop(partition, None)) is not None:
            store.close()
