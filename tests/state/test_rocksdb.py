from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from rocksdict import Rdict

from streampipe.errors import ConfigError
from streampipe.state.rocksdb import RocksStore, RocksStores, bounded
from tests.state.conformance import StateStoreMachine


class RocksStoreMachine(StateStoreMachine):
    @staticmethod
    def make() -> RocksStore:
        return RocksStore(Path(tempfile.mkdtemp()) / "store", bounded(8))


TestRocksStore = RocksStoreMachine.TestCase
TestRocksStore.settings = settings(max_examples=10, stateful_step_count=15, deadline=None)


def test_a_store_opened_again_is_empty_even_if_nobody_closed_it(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path, 8)
    discarded = stores.open("a/b", 0)
    discarded.put(b"k", b"v")
    fresh = stores.open("a/b", 0)
    assert fresh.get(b"k") is None
    fresh.put(b"k", b"new")
    discarded.close()
    assert fresh.get(b"k") == b"new"
    stores.close()


def test_what_a_process_that_died_left_on_disk_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "store" / "0"
    folder.mkdir(parents=True)
    left = Rdict(str(folder), bounded(8))
    left[b"k"] = b"old"
    left.close()
    again = Rdict(str(folder), bounded(8))
    assert again[b"k"] == b"old"  # it is there to be read
    again.close()
    stores = RocksStores(tmp_path, 8)
    assert list(stores.open("store", 0).range()) == []
    stores.close()


def test_without_rocksdict_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rocksdict", None)
    with pytest.raises(ConfigError, match=r"pip install streampipe\[rocksdb\]"):
        RocksStores(tmp_path, 8)


def test_a_state_folder_has_one_owner(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path, 8)
    with pytest.raises(ConfigError, match="in use by another process"):
        RocksStores(tmp_path, 8)
    stores.close()
    RocksStores(tmp_path, 8).close()
