"""What the figures say when they are held against each other, and against what was promised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from benchmarks.measure import Figures


@dataclass(frozen=True, slots=True)
class Comparison:
    """Contestant `name` against contestant `over` in the same job; `target`: the least ratio of rates promised."""

    job: str
    name: str
    over: str
    target: float | None = None


_ALO = "streampipe (at-least-once)"
COMPARISONS = (
    Comparison("a", "streampipe", "hand-written", 6.0),
    Comparison("a", _ALO, "hand-written", 6.0),
    Comparison("b", "streampipe", "hand-written", 4.0),
    Comparison("c", "streampipe", "hand-written", 4.5),
    Comparison("d", "streampipe", "hand-written", 2.0),
    Comparison("a", "streampipe", "columnar loop", 0.85),
    Comparison("a", _ALO, "columnar loop", 0.85),
    Comparison("c", "streampipe", "columnar loop"),
    Comparison("c", "streampipe", _ALO, 0.85),
    Comparison("c", "streampipe (commits every 100 ms)", "streampipe"),
    Comparison("c", "streampipe (10 thousand keys)", "streampipe (10 keys)"),
    Comparison("c", "streampipe (1 million keys)", "streampipe (10 keys)", 0.5),
    Comparison("a", "columnar loop", "hand-written"),
    Comparison("c", "columnar loop", "hand-written"),
    Comparison("a", "streampipe (2 workers)", "streampipe"),
    Comparison("c", "streampipe (2 workers)", "streampipe"),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster `name` is than `over`, and how many times less CPU it takes; medians over the rounds."""

    job: str
    name: str
    over: str
    rate: float
    cpu: float | None
    target: float | None
    met: bool | None
    """None without a target. Nothing is met by a contestant whose output is wrong or that did not finish."""


def ratios(figures: Iterable[Figures]) -> list[Ratio]:
    """Every comparison of which both sides ran in the same round."""
    by_run = {(f.job, f.name, f.round): f for f in figures}
    found = []
    for comparison in COMPARISONS:
        pairs = [
            (mine, other)
            for (job, name, round_), mine in by_run.items()
            if (job, name) == (comparison.job, comparison.name)
            and (other := by_run.get((job, comparison.over, round_))) is not None
        ]
        ratio = _ratio(comparison, pairs)
        if ratio is not None:
            found.append(ratio)
    return found


def _ratio(comparison: Comparison, pairs: list[tuple[Figures, Figures]]) -> Ratio | None:
    rates = [mine.rate / other.rate for mine, other in pairs if mine.rate and other.rate]
    cpus = [other.cpu_steady / mine.cpu_steady for mine, other in pairs if mine.cpu_steady and other.cpu_steady]
    if not rates:
        return None
    rate, target = median(rates), comparison.target
    right = all(mine.finished and not mine.wrong and not other.wrong for mine, other in pairs)
    met = None if target is None else right and rate >= target
    cpu = median(cpus) if cpus else None
    return Ratio(comparison.job, comparison.name, comparison.over, rate, cpu, target, met)
