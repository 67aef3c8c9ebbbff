"""A state store in memory: a dict, sorted only when somebody asks for a range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from streampipe.state import kept
from streampipe.state.kept import Mark
from streampipe.state.port import StateStore


class MemoryStore:
    """`StateStore` in a dict. Get and put are O(1); a range sorts the keys. It is kept in the file `path`, if any."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.mark: Mark | None = None
        self._entries: dict[bytes, bytes] = {}
        if path is not None and (found := kept.read(path)) is not None:
            self.mark, self._entries = found

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

    def keep(self, mark: Mark) -> None:
        """Write everything into the file. Raises OSError."""
        if self._path is not None:
            kept.write(self._path, mark, self._entries)
        self.close()

    def close(self) -> None:
        """Forget everything."""
        self.clear()


class MemoryStores:
    """`Stores` in memory, kept in files of a folder that all workers of a processor on a machine share, if any.

    A file stays when it was read: until there is a later one it is as true as before, should the worker die. Raises
    ConfigError when the folder cannot be one.
    """

    room = None

    def __init__(self, folder: Path | None = None) -> None:
        self._folder, self.keeps = folder, folder is not None
        if folder is not None:
            kept.check_folder(folder)
        self._lent: dict[tuple[str, int], StateStore] = {}

    def lend(self, name: str, partition: int, store: StateStore, mark: Mark) -> None:
        """Have a store for the next `open`."""
        store.mark = mark
        self._lent[name, partition] = store

    def open(self, name: str, partition: int, *, in_memory: bool = False) -> StateStore:  # noqa: ARG002 - it always is
        """A store as it was lent or kept, or an empty one."""
        if (lent := self._lent.pop((name, partition), None)) is not None:
            return lent
        return MemoryStore(self._folder / quote(name, safe="") / f"{partition}.state" if self._folder else None)
