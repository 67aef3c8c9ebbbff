"""One small processor for every operator, over the same input, for laws that hold for all of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from streampipe import (
    Hopping,
    MapState,
    Processor,
    Session,
    Skip,
    Sliding,
    Timer,
    Timers,
    Tumbling,
    Update,
    ValueState,
    agg,
)  # fmt: skip
from streampipe.policies import LatePolicy
from streampipe.topology.joins import StreamJoinKind
from streampipe.windows import Window


def avro(name: str, **fields: object) -> str:
    """Text of a record schema."""
    return json.dumps({"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields.items()]})


SCHEMAS = {
    "in": avro("In", k="string", x=["null", "int"], y=["null", "double"]),
    "rows": avro("Row", k="string", label="string"),
}


@dataclass
class In:
    k: str
    x: int | None


@dataclass
class Doubled:
    k: str
    twice: int


def double(event: In) -> Doubled | Skip | list[Doubled] | None:
    """Every kind of answer: nothing, a skip, one event, several, an exception."""
    if event.x is None:
        return None
    if event.x % 5 == 0:
        return Skip("a multiple of five")
    if event.x % 7 == 0:
        raise ValueError("seven")
    out = Doubled(event.k, event.x * 2)
    return [out, out] if event.x % 3 == 0 else out


def filtered() -> Processor:
    p = Processor("filtered")
    p.source("in").filter(pl.col("x") > 3).to("out")
    return p


def derived() -> Processor:
    p = Processor("derived")
    s = p.source("in").with_columns(z=pl.col("x") + 1, one=pl.lit(1)).select("k", "z", w=pl.col("y") * 2)
    s.to("out")
    return p


def expected() -> Processor:
    p = Processor("expected")
    p.source("in").expect(small=pl.col("x") < 50, even=pl.col("x") % 2 == 0).to("out")
    return p


def handled() -> Processor:
    p = Processor("handled")
    p.source("in").handle(double, to="out")
    return p


def branched() -> Processor:
    p = Processor("branched")
    low, high = p.source("in").branch(pl.col("x") < 5, pl.col("x") < 50)
    low.to("out")
    high.to("high")
    low.merge(high).to("both")
    low.to("shared", name="low-to-shared")
    high.to("shared", name="high-to-shared")
    return p


def looked_up() -> Processor:
    p = Processor("looked-up")
    rows = p.table("rows", key="k")
    p.source("in", key="k").join(rows, on="k", how="left").to("out")
    return p


def joined_inner() -> Processor:
    p = Processor("joined-inner")
    rows = p.table("rows", key="k")
    p.source("in", key="k").join(rows, on="k", prefix="row_").to("out")
    return p


def keyed() -> Processor:
    p = Processor("keyed")
    p.source("in").filter(pl.col("x").is_not_null()).key_by("x").to("out")
    return p


def windowed(emit: str = "final", late: str = "dead_letter", grace: int = 20) -> Processor:
    p = Processor(f"windowed-{emit}-{late}")
    window = p.source("in", key="k").window(Tumbling(50, grace=grace), emit=emit, late=late)  # type: ignore[arg-type]
    window.agg(
        n=agg.count(), xs=agg.count("x"), total=agg.sum("x"), ys=agg.sum("y"), mean=agg.mean("y"),
        low=agg.min("x"), high=agg.max("y"), p90=agg.quantile("y", 0.9),
        first_three=agg.collect("x", limit=3),
    ).to("out")  # fmt: skip
    return p


def windowed_updates() -> Processor:
    return windowed("updates")


def windowed_drop() -> Processor:
    return windowed("final", "drop")


def add_or_fail(sum_so_far: float, y: float) -> float:
    """A function of the user's that fails now and then, whatever the order of its calls."""
    if y < -900:
        raise ValueError("far below")
    return sum_so_far + y


def tally(state: dict[str, int], event: dict[str, Any]) -> dict[str, int]:
    """Changes the state it is given before it fails."""
    state["n"] += 1
    if event["x"] == 7:
        raise ValueError("seven")
    state["total"] += event["x"] or 0
    return state


def aggregated(emit: str = "final") -> Processor:
    p = Processor(f"aggregated-{emit}")
    window = p.source("in", key="k").window(Tumbling(50, grace=20), emit=emit)  # type: ignore[arg-type]
    window.agg(
        n=agg.count(), opened=agg.first("x"), closed=agg.last("y"), named=agg.last("k"), spread=agg.stddev("y"),
        population=agg.stddev("x", population=True), kinds=agg.approx_distinct("y", precision=7),
        best=agg.top_k("y", 3), longest=agg.max("k"), ys=agg.collect("y", limit=5),
        both=agg.collect(pl.struct("x", "y"), limit=3), total=agg.reduce(add_or_fail, "y"),
        tallied=agg.aggregate({"n": 0, "total": 0}, tally),
    ).to("out")  # fmt: skip
    return p


def aggregated_updates() -> Processor:
    return aggregated("updates")


def together(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """Two tallies as one."""
    return {name: one[name] + other[name] for name in one}


def in_windows(name: str, window: Window, emit: str = "final", late: Any = "dead_letter") -> Processor:
    """Any window, with aggregates of every sort, one of which fails now and then."""
    p = Processor(name)
    stream = p.source("in", key="k").window(window, emit=emit, late=late)  # type: ignore[arg-type]
    stream.agg(
        n=agg.count(), ys=agg.sum("y"), low=agg.min("x"), p90=agg.quantile("y", 0.9), opened=agg.first("x"),
        seen=agg.collect("x", limit=5), tallied=agg.aggregate({"n": 0, "total": 0}, tally, merge=together),
    ).to("out")  # fmt: skip
    return p


def hopping() -> Processor:
    return in_windows("hopping", Hopping(50, advance=15, grace=20))


def hopping_updates() -> Processor:
    return in_windows("hopping-updates", Hopping(50, advance=15, grace=20), "updates")


def hopping_corrected_updates() -> Processor:
    return in_windows("hopping-corrected", Hopping(50, advance=15, grace=20), late=Update(60))


def daily() -> Processor:
    return in_windows("daily", Tumbling("1d", zone="Europe/Berlin"))


def sliding() -> Processor:
    return in_windows("sliding", Sliding(30, grace=20))


def sliding_updates() -> Processor:
    return in_windows("sliding-updates", Sliding(30, grace=20), "updates")


def sliding_corrected_updates() -> Processor:
    return in_windows("sliding-corrected", Sliding(30, grace=20), late=Update(60))


def session() -> Processor:
    return in_windows("session", Session(20, grace=10))


def session_drop() -> Processor:
    return in_windows("session-drop", Session(20), late="drop")


def session_updates() -> Processor:
    return in_windows("session-updates", Session(20, grace=10, retention=100), "updates")


def session_corrected_updates() -> Processor:
    return in_windows("session-corrected", Session(20, grace=10), late=Update(60))


def running_updates() -> Processor:
    p = Processor("running")
    p.source("in", key="k").agg(n=agg.count(), ys=agg.sum("y"), tallied=agg.aggregate({"n": 0, "total": 0}, tally)).to(
        "out"
    )
    return p


def streams(name: str, how: StreamJoinKind, late: LatePolicy) -> Processor:
    p = Processor(name)
    rows = p.source("rows", key="k")
    p.source("in", key="k").join(rows, on="k", within=(30, 50), grace=20, how=how, late=late).to("out")
    return p


def streams_outer() -> Processor:
    return streams("streams-outer", "outer", "dead_letter")


def streams_left() -> Processor:
    return streams("streams-left", "left", "drop")


def streams_inner() -> Processor:
    return streams("streams-inner", "inner", "dead_letter")


def deduplicated() -> Processor:
    p = Processor("deduplicated")
    p.source("in", key="k").deduplicate(within=40, grace=60).to("out")
    return p


def remember(event: In, total: ValueState[int], seen: MapState[int], timers: Timers) -> Doubled | None:
    """Every kind of state, a failure after a change, and a timer a little later."""
    total.set(total.get(0) + 1)
    if event.x == 7:
        raise ValueError("seven")
    seen[str(event.x)] = seen.get(str(event.x), 0) + 1
    timers.set(timers.stream_time + timedelta(milliseconds=15))
    return None if event.x is None else Doubled(event.k, total.get())


def ring(timer: Timer, total: ValueState[int], seen: MapState[int]) -> list[Doubled]:
    """Several events of a timer."""
    return [Doubled(timer.key["k"], 1000 + total.get(0)), Doubled(timer.key["k"], 2000 + len(seen))]


def handled_with_state() -> Processor:
    p = Processor("handled-with-state")
    p.source("in", key="k").handle(remember, on_timer=ring, ttl=40).to("out")
    return p


def tables() -> Processor:
    p = Processor("tables")
    p.table("rows", key="k").join(p.table("in", key="k"), how="outer").to("out")
    return p


PIPELINES = [
    filtered, derived, expected, handled, branched, looked_up, joined_inner, keyed, windowed, windowed_updates,
    windowed_drop, aggregated, aggregated_updates, hopping, hopping_updates, hopping_corrected_updates, daily, sliding,
    sliding_updates, sliding_corrected_updates, session, session_drop, session_updates, session_corrected_updates,
    running_updates, streams_outer, streams_left, streams_inner, deduplicated,
    handled_with_state, tables,
]  # fmt: skip
"""Those named `updates` may tell more or less often what became of a window; only what they told last is the same."""
