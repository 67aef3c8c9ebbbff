"""What may be missing of the state that a worker kept on its disk: all of it, or a part."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

MARK = "streampipe.mark"
Way = Callable[[Path, random.Random], None]


def wipe(folder: Path, chance: random.Random) -> Counter[str]:
    """Strike every store below the folder, each in a way of its own; how many each way."""
    struck: Counter[str] = Counter()
    for store in stores(folder):
        way = chance.choice(WAYS)
        way(store, chance)
        struck[way.__name__] += 1
    return struck


def stores(folder: Path) -> list[Path]:
    """A file for each store that was in memory, a folder for each of RocksDB, left behind by a dead worker or kept."""
    return sorted([*folder.rglob("*.state"), *(current.parent for current in folder.rglob("CURRENT"))])


def gone(store: Path, _: random.Random) -> None:
    """Nothing is left."""
    if store.is_dir():
        shutil.rmtree(store)
    else:
        store.unlink()


def without_store(store: Path, _: random.Random) -> None:
    """The mark says how far a state goes that is not there."""
    if store.is_dir():
        for file in store.iterdir():
            if file.name != MARK:
                file.unlink()
    else:
        head, line, _entries = store.read_bytes().partition(b"\n")
        store.write_bytes(head + line)


def without_mark(store: Path, _: random.Random) -> None:
    """Nobody knows how far the state goes."""
    if store.is_dir():
        (store / MARK).unlink(missing_ok=True)
    else:
        store.write_bytes(store.read_bytes().partition(b"\n")[2])


def cut(store: Path, chance: random.Random) -> None:
    """A file ends too early."""
    files = sorted(file for file in store.iterdir() if file.stat().st_size) if store.is_dir() else [store]
    file = chance.choice(files)
    with file.open("rb+") as bytes_:
        bytes_.truncate(chance.randrange(file.stat().st_size))


def left_alone(store: Path, _: random.Random) -> None:
    """A whole one beside broken ones."""


WAYS = (gone, without_store, without_mark, cut, left_alone)
