"""A state store in memory: a dict, sorted only when somebody asks for a range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


class MemoryStore:
    """`StateStore` in a dict. Get and put are O(1); a range sorts the keys."""

    def __init__(self) -> None:
        self._entries: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """Value of a key."""
        return self._entries.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of many keys, in their order."""
        return list(map(self._entries.get, keys))

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set or delete one key."""
        if value is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = value

    def put_many(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Set or delete many keys, in order."""
        if None not in values:
            self._entries.update(zip(keys, values, strict=True))  # type: ignore[arg-type]  # no None among them
            return
        self._entries.update(zip(keys, values, strict=True))  # type: ignore[arg-type]  # those go at once
        for key in [key for key, value in zip(keys, values, strict=True) if value is None]:
            if self._entries.get(key, b"") is None:
                del self._entries[key]

    def range(self, start: bytes | None = None, end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < end in byte order, as of now."""
        entries = self._entries
        keys = [k for k in entries if (start is None or k >= start) and (end is None or k < end)]
        return iter([(k, entries[k]) for k in sorted(keys)])

    def scan(self, size: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """All entries, as of now."""
        keys, values = list(self._entries), list(self._entries.values())
        return ((keys[i : i + size], values[i : i + size]) for i in range(0, len(keys), size))

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def close(self) -> None:
        """Forget everything."""
        self.clear()


class MemoryStores:
    """`Stores` in memory: every store starts empty."""

    keep = None

    def open(self, name: str, partition: int) -> MemoryStore:  # noqa: ARG002 - they are all alike
        """An empty store."""
        return MemoryStore()
