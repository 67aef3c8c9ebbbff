"""Copies of state that others own: who takes over has it already."""

from __future__ import annotations

from pathlib import Path

import pytest

from streampipe.brokers.port import Broker
from streampipe.runtime import standby
from streampipe.state.memory import MemoryStores
from streampipe.state.port import Stores
from streampipe.state.rocksdb import RocksStores
from tests.runtime.fakes import Names, Watcher, await_true, committed, running, settings
from tests.runtime.shop import Shop, restored

FED = 400


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
def test_who_takes_over_restores_nothing_that_it_has_a_copy_of(
    broker: Broker, names: Names, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby, "LOOK_S", 0.1)
    opened = [RocksStores(tmp_path / worker, 8) for worker in ("one", "two")] if kind == "rocksdb" else []
    made: list[Stores] = [*opened] or [MemoryStores(), MemoryStores()]
    shop = Shop(broker, names, tmp_path, made.pop)
    watchers = [Watcher(), Watcher()]
    one, two = (shop.worker(watcher, slot=n, settings=settings(standbys=1)) for n, watcher in enumerate(watchers))
    with running(two):
        with running(one):
            await_true(lambda: all("assigned" in watcher.moves for watcher in watchers), 60)
            shop.feed(FED)
            await_true(lambda: _done(shop) >= FED, 60)
            watchers[1].standing.clear()
            await_true(lambda: watchers[1].standing and _copies(watchers[1]), 60)
            before = restored(watchers[1])
            one.abandon()
        shop.feed(FED)
        await_true(lambda: _done(shop) >= 2 * FED, 60)
    shop.check()
    after = restored(watchers[1]) - before
    assert after.keys().isdisjoint({"totals", "days", "visits", "pairs", "first"}), (
        after
    )  # the table is read again: it is an input
    for stores in opened:
        stores.close()
    shop.registry.close()


def _done(shop: Shop) -> int:
    return sum(at for tp, at in committed(shop.broker, shop.names.app).items() if tp.topic == shop.names.input)


def _copies(watcher: Watcher) -> bool:
    partitions, behind = watcher.standing[-1]
    return partitions > 0 and behind == 0


def test_without_standbys_nothing_is_copied(broker: Broker, names: Names, tmp_path: Path) -> None:
    shop = Shop(broker, names, tmp_path, MemoryStores)
    watcher = Watcher()
    shop.feed(10)
    shop.worker(watcher, until_caught_up=True).run()
    assert watcher.standing == []
    shop.registry.close()
