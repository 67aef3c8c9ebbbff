"""The worker's own code under simulated crashes and rebalances: what comes out never depends on them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from streampipe import Processor, Session, Tumbling, agg
from streampipe.brokers.simulated import Kind
from streampipe.errors import ProcessingStopped
from streampipe.runtime import standby
from streampipe.state.memory import MemoryStores
from streampipe.testing import Input, Simulation, simulate
from tests.operators.pipelines import avro
from tests.proof import PROVING

ROOT = Path(__file__).parents[2]
START = datetime(2026, 1, 1, tzinfo=UTC)
SEEDS = 10_000 if PROVING else 200
EFFECTS = [
    *itertools.product(["crash-before", "crash-after"], range(1, 5)),
    *itertools.product(["delayed"], range(1, 5 if PROVING else 2)),  # each takes a turn of everybody else
]
"""What happens to every fourth effect, from which one on."""


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("simulation")
    (folder / "orders.avsc").write_text(avro("Order", user="string", item="string", n="int"))
    (folder / "users.avsc").write_text(avro("User", user="string", full="string"))
    return str(folder)


def shop() -> Processor:
    """A table, a rule, a window, a repartition and a running aggregate."""
    p = Processor("shop")
    users = p.table("users", key="user")
    orders = p.source("orders", key="user").expect(some=pl.col("n") > 0)
    orders.join(users, on="user", how="left").to("named")
    orders.window(Tumbling("10s", grace="5s"), idle_after="never").agg(orders=agg.count(), items=agg.sum("n")).to(
        "by-user"
    )
    orders.key_by("item").window(Session("20s", grace="1h"), idle_after="never").agg(items=agg.sum("n")).to("by-item")
    return p


def orders(count: int) -> list[Input]:
    known = [Input("users", {"user": user, "full": user.upper()}, START) for user in "abc"]
    made = [
        Input("orders", {"user": "abcd"[n % 4], "item": "xyz"[n % 3], "n": n % 7}, START + timedelta(seconds=n))
        for n in range(count)
    ]
    return [*known, *made, Input("orders", b"garbage", START, key="a")]


def told(run: Simulation) -> dict[str, Any]:
    """All that a reader can see, but for how tables and streams raced, and how partitions met behind a repartition."""
    named = Counter((event["user"], event["item"], event["n"]) for event in run.events("named") if event)
    dead = Counter(
        (letter.errors["class"], letter.errors["topic"], (letter.value or b"")[5:]) for letter in run.dead_letters
    )
    return {"named": named, "dead": dead, "by-user": run.by_key("by-user"), "by-item": run.by_key("by-item")}


@pytest.fixture(scope="session")
def calm(schemas: str) -> Simulation:
    return simulate(shop(), orders(24), faults=0, schemas=schemas)


def test_a_run_without_faults_gives_what_the_definition_says(calm: Simulation) -> None:
    assert not calm.faults
    assert set(calm.happened.values()) <= {0, 2}  # nothing but the orderly end of both workers
    assert sum(told(calm)["named"].values()) == 20
    assert Counter(letter.errors["class"] for letter in calm.dead_letters) == {"validation": 4, "deserialization": 1}
    by_item = {key: sum(e["items"] for e in events if e) for key, events in calm.by_key("by-item").items()}
    assert by_item == {
        item.encode(): sum(n % 7 for n in range(24) if "xyz"[n % 3] == item) for item in "xyz"
    }  # fmt: skip


@pytest.mark.proof
@pytest.mark.parametrize("ten", range(SEEDS // 10))
def test_no_fault_of_any_seed_changes_what_comes_out(
    ten: int, schemas: str, calm: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standby, "LOOK_S", 0.05)
    for seed in range(10 * ten, 10 * ten + 10):
        monkeypatch.setattr(MemoryStores, "room", 1 if seed % 4 > 1 else None)  # what is in memory beside the stores
        run = simulate(shop(), orders(24), seed=seed, schemas=schemas, settings={"standbys": seed % 2})
        assert told(run) == told(calm), (seed, run.faults, run.happened)


def pairs() -> Processor:
    """A join of two streams, and the first of what is near each other. Nothing is late, however the streams race."""
    p = Processor("pairs")
    ordered = p.source("orders", key="user")
    returned = p.source("returns", key="user", schema=avro("Return", user="string", item="string", n="int"))
    options: dict[str, Any] = {"within": "5s", "grace": "1h", "how": "outer", "idle_after": "never"}
    ordered.join(returned, on="user", prefix="r_", columns=["n"], **options).to("paired")
    ordered.deduplicate(within="10s").select("user", "n").to("firsts")
    return p


def pairs_told(run: Simulation) -> Any:
    paired = Counter((event["user"], event["n"], event["r_n"]) for event in run.events("paired") if event)
    return paired, run.by_key("firsts"), run.dead_letters


def coming_and_going() -> list[Input]:
    ordered = orders(18)[3:-1]  # without users and garbage
    returned = [
        Input("returns", {"user": "abe"[n % 3], "item": "x", "n": n}, START + timedelta(seconds=2 * n))
        for n in range(9)
    ]
    return [*ordered, *returned]


@pytest.mark.proof
@pytest.mark.parametrize("five", range(SEEDS // 20))
def test_no_fault_of_any_seed_changes_which_records_meet(
    five: int, schemas: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = pairs_told(simulate(pairs(), coming_and_going(), faults=0, schemas=schemas))
    paired, firsts, dead = calm
    assert not dead
    assert {r for user, _, r in paired if user == "e"} == {2, 5, 8}, "alone"
    assert sum(n is not None and r is not None for _, n, r in paired) > 5
    assert {key: len(events) for key, events in firsts.items()} == {b"a": 2, b"b": 2, b"c": 2, b"d": 2}
    for seed in range(5 * five, 5 * five + 5):
        monkeypatch.setattr(MemoryStores, "room", 1 if seed % 2 else None)
        run = simulate(pairs(), coming_and_going(), seed=seed, schemas=schemas)
        assert pairs_told(run) == calm, (seed, run.faults, run.happened)


def test_faults_strike_in_every_way_and_in_the_midst_of_transactions(schemas: str) -> None:
    runs = [simulate(shop(), orders(24), seed=seed, faults=10, schemas=schemas) for seed in range(20)]
    kinds = Counter(kind for run in runs for *_, kind in run.faults)
    assert set(kinds) == {"crash-before", "crash-after", "unavailable", "lost-answer", "delayed"}
    assert {"producer.commit", "producer.send_offsets", "producer.produce", "consumer.poll"} <= {
        name for run in runs for _, name, _ in run.faults
    }
    assert all(sum(run.happened[what] for run in runs) > 0 for what in ("crashed", "frozen", "stopped"))


def test_the_same_seed_is_the_same_run(schemas: str) -> None:
    first, again, other = (simulate(shop(), orders(12), seed=seed, schemas=schemas) for seed in (7, 7, 8))
    assert first == again
    assert first.trace != other.trace


IN_A_PROCESS = """
import sys
from tests.testing.test_simulation import orders, shop, simulate
for seed in (0, 7, 11):
    print(simulate(shop(), orders(12), seed=seed, schemas=sys.argv[1]).trace)
"""


def test_the_same_seed_is_the_same_run_in_every_process(schemas: str) -> None:
    """Strings have other hashes in each process, and sets of them another order."""
    first, second = (
        subprocess.run(
            [sys.executable, "-c", IN_A_PROCESS, schemas], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True, text=True, check=True, timeout=100,
        ).stdout
        for hashes in "01"
    )  # fmt: skip
    assert len(first.split()) == 3
    assert first == second


SMALL = [
    Input("orders", {"user": "ab"[n % 2], "item": "x", "n": n + 1}, START + timedelta(seconds=n)) for n in range(6)
]


def counter() -> Processor:
    p = Processor("counter")
    p.source("orders", key="user").window(Tumbling("4s"), idle_after="never").agg(items=agg.sum("n")).to("out")
    return p


def test_runs_that_differ_only_in_a_value_have_other_traces(schemas: str) -> None:
    event = SMALL[0].event
    assert isinstance(event, dict)
    other = [replace(SMALL[0], event=event | {"n": 50}), *SMALL[1:]]
    first, second = (simulate(counter(), inputs, faults=0, schemas=schemas) for inputs in (SMALL, other))
    assert first.effects == second.effects
    assert first.trace != second.trace


@pytest.mark.proof
@pytest.mark.parametrize(("kind", "first"), EFFECTS)
def test_six_records_on_two_workers_survive_a_crash_at_every_single_effect_and_delays(
    schemas: str, kind: Kind, first: int
) -> None:
    names: list[str] = []
    calm = simulate(counter(), SMALL, faults=0, schemas=schemas, fault=lambda _, name: names.append(name))
    assert {key: [e["items"] for e in events if e] for key, events in calm.by_key("out").items()} == {
        b"a": [4, 5], b"b": [6, 6]
    }  # fmt: skip
    assert (len(names), names[-1]) == (calm.effects, "admin.close"), "the last thing that a worker does"
    for at in range(first, len(names) + 1, 4):

        def fault(effect: int, _: str, at: int = at) -> Kind | None:
            return kind if effect == at else None

        run = simulate(counter(), SMALL, faults=0, schemas=schemas, fault=fault)
        assert run.faults == [(at, names[at - 1], kind)]
        assert run.by_key("out") == calm.by_key("out"), at
        assert run.happened["crashed"] == (kind != "delayed")


def test_what_a_worker_stops_with_is_raised(schemas: str) -> None:
    def fatal(event: dict[str, Any]) -> None:
        from streampipe import Fatal

        raise Fatal("no disk")

    p = Processor("p")
    p.source("orders", key="user").handle(fatal, to="out", schema=avro("Out", n="int"))
    with pytest.raises(ProcessingStopped, match="no disk"):
        simulate(p, SMALL, schemas=schemas, faults=0)
