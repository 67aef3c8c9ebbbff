"""State that was kept comes back as it was, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.state import kept
from streampipe.state.kept import Mark
from streampipe.state.memory import MemoryStores
from streampipe.state.port import Stores
from streampipe.state.rocksdb import RocksStores

MARK = Mark("topic-id", 17, 1_700_000_000_000, "shape")


@pytest.fixture(params=["memory", "rocksdb"])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Stores]:
    """Opens the stores of one worker after the other, on one machine."""

    def opened(worker: str) -> Stores:
        if request.param == "memory":
            return MemoryStores(tmp_path / "kept")
        stores = RocksStores(tmp_path / worker, 8, tmp_path / "kept")
        request.addfinalizer(stores.close)
        return stores

    return opened


def test_what_one_worker_kept_another_one_opens(another: Callable[[str], Stores]) -> None:
    store = another("a").open("sums/by key", 3)
    assert store.mark is None
    store.put_many([b"a", b"b", b""], [b"1", b"", b"3"])
    store.keep(MARK)
    store.close()
    found = another("b").open("sums/by key", 3)
    assert found.mark == MARK
    assert list(found.range()) == [(b"", b"3"), (b"a", b"1"), (b"b", b"")]
    found.clear()
    assert len(found) == 0


def test_only_what_was_kept_comes_back(another: Callable[[str], Stores]) -> None:
    store = another("a").open("sums", 0)
    store.put(b"a", b"1")
    store.close()
    assert another("b").open("sums", 0).mark is None
    assert len(another("c").open("sums", 1)) == 0


def test_what_is_written_after_the_mark_is_not_taken_for_kept(another: Callable[[str], Stores]) -> None:
    store = another("a").open("sums", 0)
    store.put(b"a", b"1")
    store.keep(MARK)
    store = another("b").open("sums", 0)
    store.put(b"a", b"2")
    store.close()
    left = another("c").open("sums", 0)
    assert (left.mark, left.get(b"a")) in [(None, None), (MARK, b"1")]


def test_a_rocksdb_that_cannot_be_opened_is_not_used(tmp_path: Path) -> None:
    with closing(RocksStores(tmp_path / "a", 8, tmp_path / "kept")) as stores:
        store = stores.open("sums", 0)
        store.put(b"a", b"1")
        store.keep(MARK)
    (tmp_path / "kept" / "sums" / "0" / "CURRENT").write_text("nonsense\n")
    with closing(RocksStores(tmp_path / "a", 8, tmp_path / "kept")) as stores:
        store = stores.open("sums", 0)
        assert (store.mark, len(store)) == (None, 0)


@given(st.dictionaries(st.binary(max_size=5), st.binary(max_size=5)), st.data())
def test_a_file_that_is_not_as_it_was_written_is_not_read(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[bytes, bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("kept") / "0.state"
    kept.write(path, MARK, entries)
    assert kept.read(path) == (MARK, entries)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :])
    assert kept.read(path) is None
    path.write_bytes(whole[:at])
    assert kept.read(path) is None
