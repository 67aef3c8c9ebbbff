"""State stores on disk: RocksDB by rocksdict, for state that is larger than memory.

A store that is opened starts empty and is filled by its changelog, so there is no write-ahead log to write and no old
byte to trust. Only one that was kept in order is opened again: its folder is moved to where all workers of the
processor on this machine look, with a mark in it, and away from there by the first that wants it.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from streampipe.errors import ConfigError, StateLost
from streampipe.state.kept import Mark, not_used, unusable
from streampipe.state.memory import MemoryStores
from streampipe.state.port import StateStore

MIB = 1 << 20
ENTRY_BYTES = 512
"""What an entry is taken to need that a step keeps in memory."""


def check_installed() -> None:
    """Raise ConfigError with the repair when rocksdict is missing."""
    try:
        import rocksdict  # noqa: F401 - an extra: only who asks for it needs it
    except ImportError as error:
        raise ConfigError('state = "rocksdb" needs RocksDB: pip install streampipe[rocksdb]') from error


def bounded(memory_mb: int) -> Any:
    """Options of stores that share `memory_mb` MiB; write buffers take at most half of it, within the block cache."""
    import rocksdict  # an extra: only who asks for it needs it

    cache = rocksdict.Cache(memory_mb * MIB)
    table = rocksdict.BlockBasedOptions()
    table.set_block_cache(cache)
    buffers = rocksdict.WriteBufferManager.new_write_buffer_manager_with_cache(memory_mb * MIB // 2, False, cache)
    options = rocksdict.Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_manager(buffers)
    return options


class RocksStore:
    """`StateStore` in a folder of its own, emptied when opened unless it was `kept`. A length walks over all keys.

    Whatever reads or writes raises StateLost when its files are damaged.
    """

    def __init__(self, folder: Path, options: Any, kept: Path | None = None) -> None:
        import rocksdict  # an extra: only who asks for it needs it

        self._rocksdict, self._folder, self._options = rocksdict, folder, options
        self._unlogged = rocksdict.WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign, assignment]  # a property, whatever its stub says
        self._closed, self._kept = False, kept
        _remove(folder)
        self.mark = None if kept is None else _claimed(kept, folder)
        self._open()

    def _open(self) -> None:
        if self.mark is not None:
            try:
                self._db = self._rocksdict.Rdict(str(self._folder), self._options)
            except Exception as error:  # noqa: BLE001 - RocksDB's own, of whatever kind: what it cannot read is not used
                not_used(self._folder, str(error))
                self.mark = None
            else:
                return
        _remove(self._folder)
        self._folder.mkdir(parents=True)
        self._db = self._rocksdict.Rdict(str(self._folder), self._options)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if type(error) is not Exception:  # RocksDB's own are of no kind
                raise
            raise StateLost(f"state in {self._folder} is damaged: {error}") from error

    def get(self, key: bytes) -> bytes | None:
        """Value of a key."""
        with self._readable():
            found: bytes | None = self._db.get(key)
            return found

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values of many keys, in their order, in one call of RocksDB."""
        with self._readable():
            found: list[bytes | None] | None = self._db.get(list(keys)) if keys else None
            return found or []

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set or delete one key."""
        self.put_many([key], [value])

    def put_many(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Set or delete many keys, in order, as one write of RocksDB."""
        batch = self._rocksdict.WriteBatch(raw_mode=True)
        for key, value in zip(keys, values, strict=True):
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        with self._readable():
            self._db.write(batch, self._unlogged)

    def range(self, start: bytes | None = None, end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < end in byte order, as of now: an iterator of RocksDB is a snapshot."""
        entries = self._db.iter()
        if start is None:
            entries.seek_to_first()
        else:
            entries.seek(start)
        return self._walk(entries, end)

    def _walk(self, entries: Any, end: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Where RocksDB cannot read on, an iterator ends as if that were all: only its status tells."""
        try:
            with self._readable():
                while entries.valid():
                    key = entries.key()
                    if end is not None and key >= end:
                        return
                    yield key, entries.value()
                    entries.next()
                entries.status()
        finally:
            del entries  # it holds the lock of a closed database, and an error that somebody has holds this frame

    def scan(self, size: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """All entries, as of now, in byte order."""
        entries = self.range()  # now: it is not to be a snapshot of when the first of them is asked for
        parts = iter(lambda: list(islice(entries, size)), [])
        return (([key for key, _ in some], [value for _, value in some]) for some in parts)

    def __len__(self) -> int:
        return sum(1 for _ in self.range())

    def clear(self) -> None:
        """Forget everything."""
        self._let_go()
        self.mark = None
        self._open()

    def keep(self, mark: Mark) -> None:
        """Close it and move it to where the next one looks. Raises OSError."""
        if self._closed or self._kept is None:
            self.close()
            return
        self._closed = True
        try:
            self._db.flush()
            self._db.close()
        except Exception as error:  # RocksDB's own, of whatever kind, as on a disk that is full
            raise OSError(str(error)) from error
        mark.save(self._folder)
        _remove(self._kept)
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        self._folder.rename(self._kept)

    def close(self) -> None:
        """Forget everything, on disk too. Once closed, the folder may be another store's and is left alone."""
        if self._closed:
            return
        self._closed = True
        self._let_go()
        _remove(self._folder)

    def _let_go(self) -> None:
        with suppress(Exception):  # as on a disk that is full: nobody will ask for what cannot be written
            self._db.close()


def _claimed(kept: Path, folder: Path) -> Mark | None:
    """Move a kept store here, which one worker can; None when there is none in order."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        kept.rename(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        not_used(kept, str(error))
        return None
    return Mark.load(folder)


def _remove(path: Path) -> None:
    """A folder, or what somebody put in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


class RocksStores:
    """`Stores` in one folder of one worker, locked; all of them share `memory_mb` MiB of memory. Kept in `kept`.

    Half of it is RocksDB's cache and write buffers, the other half is for what steps keep beside their stores.
    Raises ConfigError when rocksdict is not installed, another process has the folder, or it cannot be made.
    """

    def __init__(self, folder: Path, memory_mb: int, kept: Path | None = None) -> None:
        check_installed()
        self._kept_in, self.keeps = kept, kept is not None
        self._in_memory = MemoryStores(kept)
        self._lent: dict[tuple[str, int], StateStore] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / "lock").open("w")
        except OSError as error:
            raise unusable(folder, str(error)) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise ConfigError(
                f"state folder {folder} is in use by another process: give it another state_dir"
            ) from error
        self._folder, self._stores = folder, dict[tuple[str, int], RocksStore]()
        self._options = bounded(memory_mb // 2)
        self._kept = memory_mb * MIB // 2 // ENTRY_BYTES

    @property
    def room(self) -> int:
        """Entries that a step may keep in memory: its share of half of the memory."""
        return self._kept // max(1, len({name for name, _ in self._stores}))

    def open(self, name: str, partition: int, *, in_memory: bool = False) -> StateStore:
        """A store as it was lent or kept, or an empty one; one that a discarded task left open is closed first."""
        if in_memory:
            return self._in_memory.open(name, partition)
        if (lent := self._lent.pop((name, partition), None)) is not None:
            return lent
        self._let_go(name, partition)
        place = Path(quote(name, safe=""), str(partition))
        store = RocksStore(self._folder / place, self._options, self._kept_in / place if self._kept_in else None)
        self._stores[name, partition] = store
        return store

    def lend(self, name: str, partition: int, store: StateStore, mark: Mark) -> None:
        """Have a store for the next `open`."""
        if isinstance(store, RocksStore):
            store.mark = mark
            self._lent[name, partition] = store
        else:
            self._in_memory.lend(name, partition, store, mark)

    def _let_go(self, name: str, partition: int) -> None:
        if (old := self._stores.pop((name, partition), None)) is not None:
            old.close()

    def close(self) -> None:
        """Close every store and give the folder up."""
        for name, partition in list(self._stores):
            self._let_go(name, partition)
        self._lock.close()
