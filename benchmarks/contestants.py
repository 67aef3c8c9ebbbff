"""Who runs: every contestant of every job, and how to start it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks import events
from benchmarks.data import Input
from benchmarks.setup import Setup

_JOBS = Path(__file__).with_name("jobs")
JOBS = {"a": "derive", "b": "join", "c": "window", "d": "function"}
TITLES = {
    "bare": "consume only",
    "a": "(a) filter and derive, Avro to Avro",
    "b": "(b) join with a global table",
    "c": "(c) tumbling hour: count, sum, max; exactly-once",
    "d": "(d) Python function, a dictionary in and one out",
}
KEYS = {"10 keys": 10, "10 thousand keys": 10_000, "1 million keys": 1_000_000}
"""How many keys there are where that is compared."""
SCHEMAS = {"bare": events.LATE, "a": events.LATE, "b": events.NAMED, "c": events.HOURLY, "d": events.ALERT}


@dataclass(frozen=True, slots=True)
class Contestant:
    """A program and the job it does. `progress`: where its progress is seen, in its output or its commits."""

    name: str
    job: str
    command: tuple[str, ...]
    progress: Literal["output", "group"]
    slow: bool = False
    """Handles records one at a time: gets fewer of them."""
    keys: int | None = None
    """How many keys its input has, if not those of the others."""
    once: bool = False
    """Runs in the first round only."""
    settings: tuple[tuple[str, str], ...] = ()
    """Further variables of its environment."""

    @property
    def key(self) -> str:
        """How --only and the figures name it."""
        return f"{self.job}:{self.name}"

    def input(self, records: int, slow_records: int) -> Input:
        """What it is given."""
        return Input(slow_records if self.slow else records, self.keys)

    def environment(self, setup: Setup) -> dict[str, str]:
        """Everything it has to know."""
        broker = {"STREAMPIPE_BROKER": f"kafka:{setup.bootstrap}", "STREAMPIPE_REGISTRY": setup.registry}
        return setup.environment() | broker | dict(self.settings)


def _loop(name: str, module: str, job: str) -> Contestant:
    command = (sys.executable, "-m", f"benchmarks.loops.{module}", *([JOBS[job]] if job in JOBS else []))
    return Contestant(name, job, command, _progress(job), slow=module == "hand")


def _streampipe(
    job: str, *flags: str, name: str = "streampipe", once: bool = False, keys: int | None = None, **settings: str
) -> Contestant:
    module = str(_JOBS / f"{JOBS[job]}.py")
    command = (sys.executable, "-m", "streampipe.cli.main", "run", module, "--port", "0", *flags)
    variables = tuple((f"STREAMPIPE_{setting.upper()}", value) for setting, value in settings.items())
    return Contestant(name, job, command, _progress(job), once=once, keys=keys, settings=variables)


def _progress(job: str) -> Literal["output", "group"]:
    return "group" if job in ("bare", "c") else "output"


def contestants(*, workers2: bool) -> list[Contestant]:
    """All of them in the order in which they run; jobs side by side, since a machine's speed drifts."""
    found = [_loop("bare consume", "bare", "bare")]
    for job in JOBS:
        found.append(_loop("hand-written", "hand", job))
        if job in ("a", "c"):
            found.append(_loop("columnar loop", "columnar", job))
        found.append(_streampipe(job))
        if job == "a":
            found.append(_streampipe(job, "--at-least-once", name="streampipe (at-least-once)"))
        if job == "c":
            often = _streampipe(job, name="streampipe (commits every 100 ms)", once=True, commit_interval_ms="100")
            found += [often, _streampipe(job, "--at-least-once", name="streampipe (at-least-once)", once=True)]
            found.append(_streampipe(job, name="streampipe (RocksDB)", once=True, state="rocksdb"))
            found += [
                _streampipe(job, name=f"streampipe ({said})", once=True, keys=keys) for said, keys in KEYS.items()
            ]
        if workers2 and job in ("a", "c"):
            found.append(_streampipe(job, "--workers", "2", name="streampipe (2 workers)", once=True))
    return found


def chosen(only: Iterable[str], everyone: Iterable[Contestant]) -> list[Contestant]:
    """Contestants picked by job (`a`), name (`streampipe`, `hand-written`) or both (`a:streampipe`); none means all.

    Raises ValueError for a pick that matches nobody.
    """
    picks, everyone = {pick.strip() for pick in only if pick.strip()}, list(everyone)
    known = {word for contestant in everyone for word in (contestant.job, contestant.name, contestant.key)}
    if picks - known:
        raise ValueError(f"--only {', '.join(sorted(picks - known))}: choose from {', '.join(sorted(known))}")
    return [c for c in everyone if not picks or picks & {c.job, c.name, c.key}]
