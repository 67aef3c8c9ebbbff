"""Columns of every type that an expression can make, kept by a join and come back from its state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from streampipe import Processor
from streampipe.state.memory import MemoryStores
from tests.operators.driver import Driver, Event
from tests.operators.pipelines import avro

AT = {"type": "long", "logicalType": "timestamp-millis"}
SCHEMAS = {side: avro(side.upper(), k="string", x="long", s="string", at=AT) for side in "ab"}
X, S, TIME = pl.col("x"), pl.col("s"), pl.col("at")
MADE = {
    "text": S + "!", "small": X.cast(pl.Int8), "count": S.str.len_chars(), "float": X.cast(pl.Float32),
    "hour": TIME.dt.hour(), "zone": TIME.dt.convert_time_zone("Europe/Berlin"), "time": TIME.dt.time(),
    "length": (TIME - TIME.dt.truncate("1s")).dt.total_milliseconds(), "bytes": S.cast(pl.Binary),
    "category": S.cast(pl.Categorical), "enum": S.cast(pl.Enum(["q", "w"])), "list": pl.concat_list(S, S + "?"),
    "struct": pl.struct(a=X.cast(pl.Int16), b=S + "."),
}  # fmt: skip


class OneEntry(MemoryStores):
    """Stores as if memory had room for one entry."""

    room: Any = 1


def results(made: pl.Expr, folder: Path, stores: MemoryStores | None = None, *, restart: bool = False) -> list[Any]:
    p = Processor("typed")
    left = p.source("a", key="k", event_time="at").with_columns(z=made)
    right = p.source("b", key="k", event_time="at").with_columns(z=made)
    left.join(right, on="k", within="20ms", how="outer", prefix="r_").select("k", "z", "r_z").to("out")
    driver = Driver(p, SCHEMAS, folder, *([stores] if stores else []))
    for n, (topic, key) in enumerate([("a", "one"), ("b", "two"), ("a", "two"), ("b", "one"), ("a", "one")]):
        driver.feed([Event(topic, key, {"k": key, "x": n, "s": "qw"[n % 2], "at": n}, n, 0)]).finish()
        if restart:
            driver.start()
    return [event for _, event, _ in driver.finish(close_windows=True).records["out"]]


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_neither_a_restart_nor_little_memory_changes_what_is_joined(made: pl.Expr, tmp_path: Path) -> None:
    told = results(made, tmp_path / "calm")
    assert len(told) == 3
    assert all(event["z"] is not None and event["r_z"] is not None for event in told)
    assert results(made, tmp_path / "restart", restart=True) == told
    assert results(made, tmp_path / "little", OneEntry()) == told
