"""What state costs: the pure task alone, in CPU seconds per million records: python -m benchmarks.state.

Each case is a process of its own: decode, operate, encode, and a drain for each commit, in batches of 10,000. The input
is made before the clock starts. Results are counted, and a case whose count is wrong says so. Restores are measured on
the changelog that a run left.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.state_cases import BATCH, CASES, Figures, of_case, of_tables
from streampipe.cli.working import collect_seldom

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    only: Annotated[str, typer.Option(help=f"Cases, separated by commas: {', '.join(CASES)}, tables.")] = "",
    records: Annotated[int, typer.Option(min=BATCH, help="Records of each case.")] = 2_000_000,
    json: Annotated[str, typer.Option(metavar="FILE|-", help="Write the figures as JSON.")] = "",
    docs: Annotated[str, typer.Option(metavar="FILE", help="Write the table as Markdown.")] = "",
    inside: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure windows, joins, functions with state and restores."""
    if inside:
        collect_seldom()
        name, _, kind = inside.partition("/")
        figures = of_tables(kind, records) if name == "tables" else of_case(name, records, keep=kind != "memory")
        sys.stdout.buffer.write(orjson.dumps(asdict(figures)))
        return
    names = [name for name in only.split(",") if name] or [*CASES, "tables/memory", "tables/rocksdb"]
    if unknown := [name for name in names if name.partition("/")[0] not in {*CASES, "tables"}]:
        raise typer.BadParameter(f"--only {unknown[0]}: choose from {', '.join(CASES)}, tables/memory, tables/rocksdb")
    measured = []
    for name in names:
        found = _apart(name, records)
        if name in CASES and CASES[name].memory:
            found.state_mb = _apart(f"{name}/memory", records).state_mb
        measured.append(found)
        Console(stderr=True).print(f"[dim]{name}[/dim]")
    _report(measured, records, json, docs)
    raise typer.Exit(int(any(figure.wrong for figure in measured)))


def _apart(name: str, records: int) -> Figures:
    """The figures of a case, run in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.state", "--records", str(records), "--inside", name]
    return Figures(**orjson.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def _report(figures: Sequence[Figures], records: int, json: str, docs: str) -> None:
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    where = f"{records:,} records a case; {machine}, {datetime.now(UTC):%Y-%m-%d}"
    if json:
        everything = {"surroundings": where, "figures": [asdict(figure) for figure in figures]}
        text = orjson.dumps(everything, option=orjson.OPT_INDENT_2)
        sys.stdout.buffer.write(text) if json == "-" else Path(json).write_bytes(text)
    headings = ("case", "keys", "records a commit", "CPU s per million", "records/s", "state MiB", "changelog",
                "restored/s", "results")  # fmt: skip
    lines = [
        (f.title, f"{f.keys:,}", f"{f.commit_every:,}", f"{f.cpu:.2f}", _whole(f.rate), _whole(f.state_mb),
         _whole(f.changelog), _whole(f.restore_rate), f.wrong or ("right" if f.checked else "-"))
        for f in figures
    ]  # fmt: skip
    table = Table(title="The pure task, without a broker", caption=where)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("case", "results") else "right")
    for line in lines:
        table.add_row(*line, style="" if line[-1] in ("right", "-") else "red")
    (Console(stderr=True) if json == "-" else Console(width=160)).print(table)
    if docs:
        rows = ["| " + " | ".join(line) + " |" for line in (headings, ["---"] * len(headings), *lines)]
        head = f"# What state costs\n\n{' '.join((__doc__ or '').split())}\n\n{where}\n"
        Path(docs).write_text("\n".join([head, *rows, ""]))


def _whole(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}"


if __name__ == "__main__":
    app()
