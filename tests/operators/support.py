"""What tests of single operators share: one stream in, one processor made around it, results by name."""

from __future__ import annotations

import atexit
import itertools
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from streampipe import Processor, Stream
from tests.operators.driver import Driver, Event, Result
from tests.operators.pipelines import avro

FOLDER = Path(tempfile.mkdtemp(prefix="streampipe-test-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
_numbers = itertools.count()

IN = avro("In", k="string", x=["null", "int"], y=["null", "double"], s=["null", "string"])


def driver(make: Callable[[Stream], Any], schemas: dict[str, str] | None = None, key: str | None = None) -> Driver:
    """A processor whose topics nobody else has: its source is `in`."""
    p = Processor("p")
    make(p.source("in", key=key))
    return Driver(p, {"in": IN, **(schemas or {})}, FOLDER / str(next(_numbers)))


def rows(*xs: Any, **constant: Any) -> list[Event]:
    """An event for each x; its time is its position."""
    return [Event("in", "k", {"k": "k", "x": x, "y": None, "s": None} | constant, i) for i, x in enumerate(xs)]


def run(make: Callable[[Stream], Any], events: Sequence[Event], schemas: dict[str, str] | None = None) -> Result:
    """Everything that the events give."""
    return driver(make, schemas).feed(events).finish()


def column(result: Result, name: str, topic: str = "out") -> list[Any]:
    """One column of a topic."""
    return [event[name] for _, event, _ in result.records[topic]]


def reasons(result: Result) -> list[tuple[int, str, str]]:
    """Offset, stage and class of each dead letter."""
    return [(int(told["offset"]), told["stage"], told["class"]) for _, _, told in result.dead]
