"""State that is wiped is missing in the way that was meant, for stores of both kinds."""

from __future__ import annotations

import random
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

import pytest

from streampipe.state.kept import Mark
from streampipe.state.memory import MemoryStores
from streampipe.state.rocksdb import RocksStores
from tests.chaos import wipes


def opened(kind: str, folder: Path) -> AbstractContextManager[MemoryStores | RocksStores]:
    """The stores of a worker, which go on with what was kept in the folder."""
    if kind == "memory":
        return nullcontext(MemoryStores(folder / "kept"))
    return closing(RocksStores(folder / "0", 16, folder / "kept"))


def keep(kind: str, folder: Path, partitions: int) -> None:
    with opened(kind, folder) as stores:
        for partition in range(partitions):
            store = stores.open("sums", partition)
            store.put(b"key", b"value")
            store.keep(Mark("topic", 1, 0))


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
def test_every_store_that_was_kept_is_struck_and_all_ways_come_up(kind: str, tmp_path: Path) -> None:
    keep(kind, tmp_path, 30)
    struck = wipes.wipe(tmp_path, random.Random(1))
    assert struck.total() == 30
    assert struck.keys() == {way.__name__ for way in wipes.WAYS}


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
@pytest.mark.parametrize("way", wipes.WAYS)
def test_whatever_is_done_to_it_state_begins_empty_or_as_it_was(kind: str, way: wipes.Way, tmp_path: Path) -> None:
    whole = (Mark("topic", 1, 0), [(b"key", b"value")])
    for seed in range(10):
        folder = tmp_path / str(seed)
        keep(kind, folder, 1)
        [store] = wipes.stores(folder)
        way(store, random.Random(seed))
        with opened(kind, folder) as stores:
            found = stores.open("sums", 0)
            told = found.mark, list(found.range())
        assert (
            told == whole
            if way is wipes.left_alone
            else told in ([whole, (None, [])] if way is wipes.cut else [(None, [])])
        )
