"""The figures for people: tables and a bar chart in the terminal, the same tables as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median

import confluent_kafka
from rich.console import Console
from rich.table import Table

from benchmarks.contestants import TITLES
from benchmarks.measure import Figures
from benchmarks.ratios import Ratio, ratios

_PACKAGES = ("confluent-kafka", "fastavro", "pyruhvro", "polars", "pyarrow")
_COLUMNS = (
    "contestant", "input records", "records/s", "min to max", "/s from launch", "CPU s per million", "steady",
    "peak MiB", "output",
)  # fmt: skip
_RATIO_COLUMNS = ("ratio", "times the rate", "target", "", "times less CPU")
_BAR = 40


@dataclass(frozen=True, slots=True)
class Row:
    """A contestant's medians over its rounds."""

    job: str
    name: str
    cells: tuple[str, ...]
    rate: float | None


def rows(figures: Iterable[Figures]) -> list[Row]:
    """One row a contestant, in the order of their first runs."""
    runs: dict[tuple[str, str], list[Figures]] = {}
    for figure in figures:
        runs.setdefault((figure.job, figure.name), []).append(figure)
    return [_row(job, name, of) for (job, name), of in runs.items()]


def _row(job: str, name: str, runs: Sequence[Figures]) -> Row:
    rates = [run.rate for run in runs if run.rate]
    rate = _median(run.rate for run in runs)
    cells = (
        name,
        f"{max(run.records for run in runs):,}",
        _number(rate),
        f"{min(rates):,.0f} to {max(rates):,.0f}" if len(rates) > 1 else "",
        _number(_median(run.rate_from_launch for run in runs)),
        _number(_median(run.cpu for run in runs), 2),
        _number(_median(run.cpu_steady for run in runs), 2),
        _number(_median(run.peak_mb for run in runs)),
        _verdict(job, runs),
    )
    return Row(job, name, cells, rate)


def _verdict(job: str, runs: Sequence[Figures]) -> str:
    wrong = [problem for run in runs for problem in run.wrong]
    if wrong:
        return "; ".join(dict.fromkeys(wrong))
    if not all(run.finished for run in runs):
        return "cut off"
    return "-" if job == "bare" else "right"


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def ratio_cells(ratio: Ratio) -> tuple[str, ...]:
    """A ratio as cells under `_RATIO_COLUMNS`."""
    return (
        f"({ratio.job}) {ratio.name} / {ratio.over}",
        f"{ratio.rate:.2f}",
        "" if ratio.target is None else f">= {ratio.target:g}",
        {None: "", True: "✓", False: "✗"}[ratio.met],
        _number(ratio.cpu, 2),
    )


def show(console: Console, figures: Sequence[Figures], surroundings: Sequence[str]) -> None:
    """Everything, ending with the chart."""
    found = rows(figures)
    for job, title in TITLES.items():
        mine = [row.cells for row in found if row.job == job]
        if mine:
            console.print(_table(title, _COLUMNS, mine, left=(0, 8)))
    compared = [ratio_cells(ratio) for ratio in ratios(figures)]
    if compared:
        console.print(_table("Ratios within a round, medians", _RATIO_COLUMNS, compared, left=(0, 3)))
    for line in surroundings:
        console.print(f"[dim]{line}[/dim]", highlight=False)
    for line in chart(found):
        console.print(line, highlight=False)


def _table(title: str, columns: Sequence[str], cells: Iterable[Sequence[str]], left: Sequence[int]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index in left else "right", overflow="fold")
    for line in cells:
        style = "red" if "✗" in line else "green" if "✓" in line else ""
        table.add_row(*line, style=style)
    return table


def chart(found: Sequence[Row]) -> Iterator[str]:
    """Records/s as bars, with Rich's markup; each job against its own fastest."""
    width = max((len(row.name) for row in found), default=0)
    for job, title in TITLES.items():
        mine = [(row, row.rate) for row in found if row.job == job and row.rate]
        if not mine or job == "bare":
            continue
        yield f"\n[bold]{title}[/bold], records/s"
        top = max(rate for _, rate in mine)
        for row, rate in sorted(mine, key=lambda pair: -pair[1]):
            colour = "cyan" if row.name.startswith("streampipe") else "bright_black"
            yield f"{row.name:>{width}} [{colour}]{'█' * max(1, round(rate / top * _BAR))}[/] {rate:,.0f}"


def surroundings(kafka: str, command: str) -> list[str]:
    """Where this ran: machine, versions, command."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    return [
        f"Machine: {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}; "
        f"the broker shares it.",
        f"Versions: Python {platform.python_version()}, {kafka}, librdkafka {confluent_kafka.libversion()[0]}, "
        f"{packages}.",
        f"Command: {command}",
    ]


def markdown(figures: Sequence[Figures], surroundings: Sequence[str], about: str) -> str:
    """The document: what was measured, the tables, the ratios."""
    found = rows(figures)
    parts = [about.rstrip(), "", *(f"- {line}" for line in surroundings), ""]
    for job, title in TITLES.items():
        mine = [row.cells for row in found if row.job == job]
        if mine:
            parts += [f"## {title[0].upper()}{title[1:]}", "", *_markdown_table(_COLUMNS, mine), ""]
    parts += ["## Ratios", "", "Within a round; the median over rounds.", ""]
    parts += [*_markdown_table(_RATIO_COLUMNS, map(ratio_cells, ratios(figures))), ""]
    return "\n".join(parts)


def _markdown_table(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'|'.join(' --- ' for _ in columns)}|"
    for line in cells:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in line)} |"
