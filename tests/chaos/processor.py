"""The processor that is killed: an echo, three aggregates by key, one of sessions, and one behind a repartition topic.

Its name, and so all its topics, comes from CHAOS_PROCESSOR: runs that share a broker stay apart.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import polars as pl

from streampipe import Processor, Session, Tumbling, agg

EVENT = json.dumps({
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "k", "type": "string"},
        {"name": "seq", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "shop", "type": "string"},
        {"name": "amount", "type": "int"},
    ],
})  # fmt: skip
AHEAD_MS = 86_400_000
BY_KEY = Tumbling("10s", grace="5s")
BY_SHOP = Tumbling("1m", grace="2m")
VISITS = Session("500ms", grace="5s")
"""Short enough that even the most frequent keys are silent for so long now and then."""
STORES = ("sum-by-key", "run-by-key", "sum-by-shop", "visits-by-key")


@dataclass(frozen=True, slots=True)
class Topics:
    """Every topic of the processor of this name."""

    name: str

    @property
    def input(self) -> str:
        return f"{self.name}-in"

    @property
    def echo(self) -> str:
        return f"{self.name}-echo"

    @property
    def totals(self) -> str:
        return f"{self.name}-totals"

    @property
    def running(self) -> str:
        return f"{self.name}-running"

    @property
    def shops(self) -> str:
        return f"{self.name}-shops"

    @property
    def visits(self) -> str:
        return f"{self.name}-visits"

    @property
    def repartition(self) -> str:
        return f"{self.name}-by-shop-repartition"

    @property
    def dead(self) -> str:
        return f"{self.name}-dlq"

    @property
    def changelogs(self) -> tuple[str, ...]:
        return tuple(f"{self.name}-{store}-changelog" for store in STORES)

    @property
    def written(self) -> tuple[str, ...]:
        results = self.echo, self.totals, self.running, self.visits, self.shops
        return (*results, self.repartition, self.dead, *self.changelogs)


def build(name: str) -> Processor:
    topics, made = Topics(name), Processor(name)
    results = {"n": agg.count(), "total": agg.sum("amount"), "high": agg.max("amount")}
    events = made.source(topics.input, event_time="at", key="k", schema=EVENT, max_ahead=AHEAD_MS)
    valid = events.expect(not_negative=pl.col("amount") >= 0)
    valid.select("k", "seq", "amount").to(topics.echo)
    valid.window(BY_KEY, name="sum-by-key").agg(**results).to(topics.totals)
    valid.window(BY_KEY, emit="updates", late="drop", name="run-by-key").agg(**results).to(topics.running)
    valid.window(VISITS, name="visits-by-key").agg(**results).to(topics.visits)
    valid.key_by("shop", name="by-shop").window(BY_SHOP, name="sum-by-shop").agg(**results).to(topics.shops)
    return made


processor = build(os.environ.get("CHAOS_PROCESSOR", "chaos"))
