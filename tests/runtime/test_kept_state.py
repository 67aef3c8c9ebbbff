"""State that a worker kept when it stopped: the next one reads the rest of the changelog, if it is the same one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from streampipe.brokers.port import Broker
from streampipe.clock import SystemClock
from streampipe.runtime.topics import prepare_topics
from streampipe.state import kept
from streampipe.state.kept import VOID_AFTER_MS, Mark
from streampipe.state.memory import MemoryStores
from streampipe.state.port import Stores
from streampipe.state.rocksdb import RocksStores
from tests.runtime.fakes import Names
from tests.runtime.shop import Shop


class Later(SystemClock):
    """Some days from now, by the wall clock."""

    def now_ms(self) -> int:
        return super().now_ms() + 2 * VOID_AFTER_MS


@pytest.fixture(params=["memory", "rocksdb"])
def shop(request: pytest.FixtureRequest, broker: Broker, names: Names, tmp_path: Path) -> Iterator[Shop]:
    opened: list[RocksStores] = []

    def stores() -> Stores:
        if request.param == "memory":
            return MemoryStores(tmp_path / "kept")
        for old in opened:
            old.close()
        opened[:] = [RocksStores(tmp_path / "worker", 8, tmp_path / "kept")]
        return opened[0]

    made = Shop(broker, names, tmp_path, stores)
    yield made
    for old in opened:
        old.close()
    made.registry.close()


def test_an_orderly_restart_restores_nothing_that_was_kept(shop: Shop) -> None:
    shop.feed(200)
    shop.run()
    shop.feed(100)
    assert shop.run() == {}
    shop.check()
    assert shop.run() == {}


def test_what_was_kept_before_somebody_else_went_on_is_brought_up_to_date(shop: Shop) -> None:
    shop.feed(200)
    shop.run()
    usual, shop.stores = shop.stores, MemoryStores
    shop.feed(20)
    elsewhere = shop.run()
    shop.stores = usual
    shop.feed(5)
    tail = shop.run()
    shop.check()
    assert 0 < tail["totals"] < elsewhere["totals"]


def test_a_changelog_that_was_made_anew_is_read_whole(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.feed(200)
    shop.run()
    topics = [f"{shop.names.app}-{name}-changelog" for name in ("totals", "days", "visits")]
    with closing(shop.broker.admin()) as admin:
        for topic in topics:
            admin.delete_topic(topic)
        prepare_topics(shop.topology, admin, create=True)
    for key in shop.totals:
        shop.totals[key] = 0
    shop.feed(200)
    with caplog.at_level("INFO", "streampipe.runtime.restore"):
        shop.run()
    shop.check()
    assert "of another changelog" in caplog.text


def test_what_lies_longer_than_tombstones_do_is_not_used(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.feed(200)
    shop.run()
    shop.feed(10)
    with caplog.at_level("INFO", "streampipe.runtime.restore"):
        assert shop.run(clock=Later())["totals"] >= 50
    shop.check()
    assert "too old" in caplog.text


def test_a_damaged_block_of_kept_state_has_all_of_it_read_back_from_its_changelogs(
    broker: Broker, names: Names, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as opened:

        def stores() -> Stores:
            opened.close()
            return opened.enter_context(closing(RocksStores(tmp_path / "worker", 8, tmp_path / "kept")))

        shop = Shop(broker, names, tmp_path, stores)
        shop.feed(200)
        shop.run()
        files = list((tmp_path / "kept").rglob("*.sst"))
        for file in files:
            file.write_bytes(b"\xff" + file.read_bytes()[1:])  # within the first block of entries
        shop.feed(100)
        assert files
        assert shop.run()["totals"] >= 50
        shop.check()
        assert "state on disk is not used, its changelog is read whole: " in caplog.text
        assert shop.run() == {}


def test_state_that_says_to_go_further_than_its_changelog_is_not_used(
    broker: Broker, names: Names, tmp_path: Path
) -> None:
    shop = Shop(broker, names, tmp_path, lambda: MemoryStores(tmp_path / "kept"))
    shop.feed(200)
    shop.run()
    for path in (tmp_path / "kept").rglob("*.state"):
        found = kept.read(path)
        assert found is not None
        mark, _ = found
        kept.write(path, Mark(mark.topic_id, mark.offset + 10_000, mark.at_ms, mark.shape), {})
    shop.feed(10)
    assert shop.run()["totals"] >= 50
    shop.check()
