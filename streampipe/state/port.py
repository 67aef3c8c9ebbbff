"""The StateStore seam: bytes to bytes, one store a partition. Everything else is a wrapper or a codec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from streampipe.state.kept import Mark


class StateStore(Protocol):
    """Ordered map of keys to values. A value of None means absent; putting None deletes.

    Writes are visible to reads at once; they are durable only by the changelog. Not for several threads.
    """

    def get(self, key: bytes) -> bytes | None:
        """Value of a key."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of many keys, in their order."""

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set or delete one key."""

    def put_many(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Set or delete many keys, in order: the last one of a repeated key wins."""

    def range(self, start: bytes | None = None, end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < end in byte order; None is unbounded. A snapshot: later writes do not show."""

    def scan(self, size: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Keys and values of all entries, `size` at a time at most, in any order. A snapshot, as `range` is."""

    def __len__(self) -> int:
        """Number of keys."""

    def clear(self) -> None:
        """Forget everything."""

    mark: Mark | None
    """How far it went when it was opened; None: it was opened empty."""

    def keep(self, mark: Mark) -> None:
        """Close it, but leave everything for whoever opens it next, if that is possible. Raises OSError."""

    def close(self) -> None:
        """Release everything. One that was kept stays."""


class Stores(Protocol):
    """Where the stores of a worker come from."""

    @property
    def room(self) -> int | None:
        """How many entries a step may keep in memory beside its stores; None: all, the stores are memory as well."""

    keeps: bool
    """Whether a store that is kept can be opened again."""

    def open(self, name: str, partition: int, *, in_memory: bool = False) -> StateStore:
        """The store of a step (`name`) for one partition: as it was lent or kept, or empty. It is closed before that.

        `in_memory`: it only holds what goes to slots in memory anyway.
        """

    def lend(self, name: str, partition: int, store: StateStore, mark: Mark) -> None:
        """The next `open` is to give this store, opened here before, which goes up to `mark` by now."""


def put_named(store: StateStore, keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> None:
    """Apply records of a changelog, in order; one without key says nothing."""
    named = [(key, value) for key, value in zip(keys, values, strict=True) if key is not None]
    store.put_many([key for key, _ in named], [value for _, value in named])
