"""State that was kept comes back as it was, or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.errors import ConfigError, StateLost
from streampipe.state import kept
from streampipe.state.kept import Mark
from streampipe.state.memory import MemoryStores
from streampipe.state.port import StateStore, Stores
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


def damaged(tmp_path: Path) -> Path:
    """A kept store of which one block in the middle is not as it was written."""
    with closing(RocksStores(tmp_path / "a", 8, tmp_path / "kept")) as stores:
        store = stores.open("sums", 0)
        store.put_many([b"%05d" % n for n in range(10_000)], [b"%d" % n for n in range(10_000)])
        store.keep(MARK)
    (file,) = (tmp_path / "kept" / "sums" / "0").glob("*.sst")
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    return tmp_path / "kept"


READS: dict[str, Callable[[StateStore], object]] = {
    "get": lambda store: [store.get(b"%05d" % n) for n in range(10_000)],
    "get_many": lambda store: store.get_many([b"%05d" % n for n in range(10_000)]),
    "range": lambda store: list(store.range(b"00001", b"09999")),
    "scan": lambda store: list(store.scan(100)),
    "len": len,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_rocksdb_with_a_damaged_block_says_so_whoever_reads_it_and_the_next_one_is_empty(
    tmp_path: Path, read: Callable[[StateStore], object]
) -> None:
    with closing(RocksStores(tmp_path / "a", 8, damaged(tmp_path))) as stores:
        store = stores.open("sums", 0)
        assert store.mark == MARK
        with pytest.raises(StateLost, match="checksum mismatch"):
            read(store)
        again = stores.open("sums", 0)
        assert (again.mark, len(again)) == (None, 0)


@pytest.mark.parametrize(
    ("kind", "way"),
    [*itertools.product(["*.sst", "MANIFEST-*", "CURRENT"], ["gone", "cut", "longer", "other"]), ("[!s]*", "gone")],
)
def test_a_rocksdb_whose_files_are_not_those_that_were_kept_is_not_used(tmp_path: Path, kind: str, way: str) -> None:
    """RocksDB itself opens some of them as if nothing were missing, or makes a new database where one was."""
    for cut_at in (0.0, 0.3, 0.6, 0.9):
        with closing(RocksStores(tmp_path / "a", 8, tmp_path / "kept")) as stores:
            store = stores.open("sums", 0)
            for part in range(3):  # several changes of what RocksDB says its files are
                store.put_many([b"%d-%d" % (part, n) for n in range(100)], [b"1"] * 100)
                store._db.flush()  # type: ignore[attr-defined]
            store.keep(MARK)
        for file in sorted((tmp_path / "kept" / "sums" / "0").glob(kind)):
            whole = file.read_bytes()
            at = int(len(whole) * cut_at)
            parts = {
                "cut": whole[:at],
                "longer": whole + b"x",
                "other": whole[:at] + bytes(byte ^ 1 for byte in whole[at : at + 1]) + whole[at + 1 :],
            }
            file.unlink() if way == "gone" else file.write_bytes(parts[way])
        with closing(RocksStores(tmp_path / "a", 8, tmp_path / "kept")) as stores:
            store = stores.open("sums", 0)
            if kind == "*.sst" and way == "other" and store.mark is not None:  # its blocks have checksums of their own
                with pytest.raises(StateLost):
                    list(store.range())
            else:
                assert (store.mark, len(store)) == (None, 0)


@pytest.mark.parametrize("place", ["a/sums/0", "kept/sums/0", "kept/sums"])
def test_a_file_in_the_place_of_a_partitions_folder_is_as_if_nothing_were_there(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("not a folder")
    with closing(RocksStores(tmp_path / "a", 8, tmp_path / "kept")) as stores:
        store = stores.open("sums", 0)
        assert (store.mark, len(store)) == (None, 0)


def test_state_that_is_kept_but_not_used_is_in_the_log_with_the_reason(
    another: Callable[[str], Stores], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    another("a").open("sums", 0).keep(MARK)
    assert not caplog.messages
    (file,) = [p for p in (tmp_path / "kept").rglob("*") if p.name in {"0.state", "streampipe.mark"}]
    file.write_bytes(b"nonsense")
    assert another("b").open("sums", 0).mark is None
    (message,) = caplog.messages
    assert message.startswith("kept state is not used, its changelog is read whole: ")
    assert message.endswith("not as it was written")
    assert another("c").open("sums", 1).mark is None
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("made", [lambda f: MemoryStores(f / "kept"), lambda f: RocksStores(f / "0", 8)])
def test_a_file_in_the_place_of_the_state_folder_is_a_wrong_setting(
    tmp_path: Path, made: Callable[[Path], Stores]
) -> None:
    (tmp_path / "state").write_text("not a folder")
    with pytest.raises(ConfigError, match="set state_dir to a folder"):
        made(tmp_path / "state" / "app")


def test_a_state_folder_that_cannot_be_made_is_a_wrong_setting_where_state_is_on_disk() -> None:
    MemoryStores(Path("/proc/none/kept"))  # it only keeps nothing
    with pytest.raises(ConfigError, match="set state_dir to a folder"):
        RocksStores(Path("/proc/none"), 8)


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
