"""The results as tables and a plot in the terminal, or as JSON."""

from __future__ import annotations

from typing import Any

import polars as pl
from rich.bar import Bar
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from demo.broken import PROCESSORS
from demo.results import OUTCOMES, Results

HOURS_SHOWN = 8
AIRPORTS_SHOWN = 8
AIRPORT_FLIGHTS = 50
"""Destinations with fewer flights than this say more about one bad day than about the airport."""


def worst_hours(hourly: pl.DataFrame) -> pl.DataFrame:
    """The hours with the highest P95 delay among those with ten flights that left, worst first."""
    busy = hourly.filter(pl.col("flights") - pl.col("cancelled") >= 10)
    return busy.sort("p95_delay", "window_start", descending=[True, False]).head(HOURS_SHOWN)


def worst_destinations(enriched: pl.DataFrame) -> pl.DataFrame:
    """The destinations with the highest mean departure delay, worst first."""
    by_airport = enriched.group_by("dest", "dest_name").agg(
        flights=pl.len(), mean_delay=pl.col("dep_delay").mean(), weather_temp=pl.col("weather_temp").mean()
    )
    frequent = by_airport.filter(pl.col("flights") >= AIRPORT_FLIGHTS)
    return frequent.sort("mean_delay", "dest", descending=[True, False]).head(AIRPORTS_SHOWN)


def show(results: Results, console: Console) -> None:
    """Print the whole report."""
    for part in (_fates, _processors, _dead_letters, _hours, _destinations, _origins):
        console.print(part(results))


def as_json(results: Results) -> dict[str, Any]:
    """The same figures for programs."""
    return {
        "flights_loaded": results.loaded,
        "processing_seconds": round(results.seconds, 2),
        "outcomes": results.fates,
        "processors": {name: {**results.figures[name], "lag": results.lag[name]} for name in PROCESSORS},
        "dead_letters": {name: dict(results.dead_letters[name]) for name in PROCESSORS},
        "most_delayed_hours": worst_hours(results.hourly).select("origin", "window_start", "p95_delay").to_dicts(),
        "most_delayed_destinations": worst_destinations(results.enriched).select("dest", "mean_delay").to_dicts(),
    }


def _table(title: str, *columns: str, left: int = 1) -> tuple[Group, Table]:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for n, column in enumerate(columns):
        table.add_column(column, justify="left" if n < left else "right")
    return Group(Text(f"\n{title}", style="bold"), table), table


def _fates(results: Results) -> Group:
    title = "Every record has one fate"
    shown, table = _table(title, "processor", "input topic", *OUTCOMES, "records", left=2)
    for name in PROCESSORS:
        for topic, fates in sorted(results.fates[name].items()):
            counts = [fates.get(outcome, 0) for outcome in OUTCOMES]
            own = topic.removeprefix(f"{name}-")  # of its repartition topic
            table.add_row(name, own, *(f"{count:,}" for count in counts), f"{sum(counts):,}")
    return shown


def _processors(results: Results) -> Group:
    title = f"{results.loaded:,} flights through each of three processors in {results.seconds:.1f} s, start-up included"
    shown, table = _table(title, "processor", "records/s", "P95 latency", "lag (records)", "lag (time)")
    for name in PROCESSORS:
        figures, lag = results.figures[name], results.lag[name]
        table.add_row(
            name,
            _number(figures["records_per_second"], ",.0f"),
            _number(figures["p95_s"], ".2f", " s"),
            _number(lag["records"], ",.0f"),
            _number(lag["seconds"], ".1f", " s"),
        )
    note = Text("latency: from arrival in the topic, before the workers started, to the commit", style="dim")
    return Group(shown, note)


def _dead_letters(results: Results) -> Group:
    classes = sorted({failure for counts in results.dead_letters.values() for failure in counts})
    shown, table = _table("Dead letters by class", "processor", *classes)
    for name in PROCESSORS:
        table.add_row(name, *(str(results.dead_letters[name][failure]) for failure in classes))
    return shown


def _hours(results: Results) -> Group:
    columns = ("origin", "hour (UTC)", "flights", "cancelled", "mean", "max", "P95")
    shown, table = _table("Most delayed hours, departure delay in minutes", *columns, left=2)
    for row in worst_hours(results.hourly).iter_rows(named=True):
        hour = str(row["window_start"])[:16].replace("T", " ")
        counts = (f"{row['flights']}", f"{row['cancelled']}")
        table.add_row(
            row["origin"], hour, *counts, f"{row['mean_delay']:.1f}", f"{row['max_delay']}", f"{row['p95_delay']:.0f}"
        )
    return shown


def _destinations(results: Results) -> Group:
    rows = [
        (f"{r['dest']}  {r['dest_name'] or '(not in the airports topic)'}", r["mean_delay"])
        for r in worst_destinations(results.enriched).iter_rows(named=True)
    ]
    return _bars("Most delayed destinations, mean departure delay in minutes", rows)


def _origins(results: Results) -> Group:
    departed = results.hourly.with_columns(departed=pl.col("flights") - pl.col("cancelled"))
    means = departed.group_by("origin").agg(
        mean=(pl.col("mean_delay") * pl.col("departed")).sum() / pl.col("departed").sum()
    )
    rows = list(means.sort("mean", descending=True).iter_rows())
    return _bars("New York's airports, mean departure delay in minutes", rows)


def _bars(title: str, rows: list[tuple[str, float]]) -> Group:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=34, no_wrap=True, overflow="ellipsis")
    grid.add_column(width=36)
    grid.add_column(justify="right")
    longest = max((value for _, value in rows), default=1.0)
    for label, value in rows:
        grid.add_row(label, Bar(longest, 0, max(value, 0.0), color="cyan"), f"{value:.1f}")
    return Group(Text(f"\n{title}", style="bold"), grid)


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "unknown" if value is None else f"{value:{form}}{unit}"
