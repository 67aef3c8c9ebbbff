"""The command: python -m benchmarks."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks import data, measure, profiler, report
from benchmarks.contestants import Contestant, chosen, contestants
from benchmarks.kafka import Kafka, cleared
from benchmarks.measure import Figures
from benchmarks.ratios import ratios
from streampipe.testing.stack import KAFKA_VERSION, REGISTRY_VERSION, Stack, StackUnavailable

FULL = 4_000_000
"""Records that a run must have to be worth writing down: with fewer, start-up counts."""
_ABOUT = Path(__file__).with_name("about.md")
_DOCS = measure.ROOT / "docs" / "benchmarks.md"
_STDERR = Console(stderr=True)

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    only: Annotated[str, typer.Option(help="Jobs (a, b, c, d, bare) or contestants, separated by commas.")] = "",
    records: Annotated[int, typer.Option(min=1, max=data.MAX_RECORDS, help="Records for the fast ones.")] = FULL,
    slow_records: Annotated[int, typer.Option(min=1, help="Records for the hand-written loops, at most.")] = 500_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often to run everything.")] = 1,
    workers2: Annotated[bool, typer.Option("--workers2", help="Also run (a) and (c) with two workers, once.")] = False,
    cap: Annotated[float, typer.Option(min=1, help="Seconds that a contestant may take.")] = 180,
    json: Annotated[str, typer.Option(metavar="FILE|-", help="Write the figures as JSON.")] = "",
    docs: Annotated[str, typer.Option(metavar="FILE", help="Write this even after a partial run.")] = "",
    profile: Annotated[
        str, typer.Option(metavar="WHO", help="Only profile a worker: c, 'c:streampipe (RocksDB)'.")
    ] = "",
) -> None:
    """Measure streampipe against loops written by hand, on one real Kafka, and print the ratios."""
    try:
        picked = chosen(only.split(","), contestants(workers2=workers2))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    workers = {c.key.removesuffix(":streampipe"): c for c in contestants(workers2=False) if "streampipe" in c.name}
    if profile and profile not in workers:
        raise typer.BadParameter(f"--profile {profile}: choose from {', '.join(workers)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that contestants and topics go away then as well
    try:
        with _kafka() as (kafka, about), cleared(kafka):
            if profile:
                raise typer.Exit(_profile(kafka, workers[profile], records, cap))
            figures = run(kafka, picked, records, min(slow_records, records), rounds, cap)
    except StackUnavailable as error:
        _STDERR.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None
    flags = {"--only": only, "--records": records, "--slow-records": slow_records, "--rounds": rounds, "--cap": cap}
    said = [f"{flag} {value}" for flag, value in flags.items() if value]  # without --json and --docs: paths are private
    where = report.surroundings(about, " ".join(["python -m benchmarks", *said, *["--workers2"] * workers2]))
    if records < FULL:
        where.append(f"Fewer than {FULL:,} records: start-up counts, and the marks of the targets mean little.")
    report.show(_STDERR if json == "-" else Console(), figures, where)
    _write(json, docs, figures, where, complete=not only and records >= FULL)
    raise typer.Exit(1 if any(figure.wrong for figure in figures) else 0)


def run(
    kafka: Kafka, picked: Sequence[Contestant], records: int, slow_records: int, rounds: int, cap_s: float
) -> list[Figures]:
    """Run the contestants one after the other, in rounds, with a progress bar each on standard error."""
    figures: list[Figures] = []
    with _progress() as bar:
        for what in dict.fromkeys(contestant.input(records, slow_records) for contestant in picked):
            kafka.fill(what, bar(f"input {what}", what.records))
        for round_ in range(1, rounds + 1):
            for contestant in picked:
                if contestant.once and round_ > 1:
                    continue
                what = contestant.input(records, slow_records)
                label = contestant.key if rounds == 1 else f"{contestant.key} ({round_}/{rounds})"
                figures.append(measure.measure(kafka, contestant, what, round_, cap_s, bar(label, what.records)))
    return figures


@contextmanager
def _progress() -> Iterator[Callable[[str, int], Callable[[float], None]]]:
    """Gives out bars: called with a label and a total, returns what to call with what is done."""
    columns = (
        TextColumn("{task.description:32}"),
        BarColumn(),
        TextColumn("{task.completed:>11,.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_STDERR, refresh_per_second=2) as progress:

        def bar(label: str, total: int) -> Callable[[float], None]:
            task: TaskID = progress.add_task(label, total=total)
            return lambda done: progress.update(task, completed=done)

        yield bar


@contextmanager
def _kafka() -> Iterator[tuple[Kafka, str]]:
    """The Kafka and registry that the environment names, else our own, and what they are."""
    bootstrap, registry = os.environ.get("STREAMPIPE_TEST_KAFKA"), os.environ.get("STREAMPIPE_TEST_REGISTRY")
    if bootstrap and registry:
        yield Kafka(bootstrap, registry), "a Kafka and a registry that were given"
        return
    with Stack(registry=True) as stack:
        about = f"Apache Kafka {KAFKA_VERSION}, Apicurio Registry {REGISTRY_VERSION}"
        yield Kafka(bootstrap or stack.bootstrap, registry or stack.registry_url), about


def _profile(kafka: Kafka, worker: Contestant, records: int, cap_s: float) -> int:
    with TemporaryDirectory(prefix="bench-") as folder, _progress() as bar:
        file = Path(folder) / "profile"
        command = (sys.executable, "-m", "benchmarks.profiler", str(file), *worker.command[3:])
        what = worker.input(records, records)
        kafka.fill(what, bar("input", records))
        profiled = replace(worker, command=command)
        figures = measure.measure(kafka, profiled, what, 1, cap_s, bar(f"{worker.key} profiled", records))
        if file.exists():
            sys.stdout.write(profiler.top(file))
    for problem in figures.wrong:
        _STDERR.print(f"[red]{problem}[/red]")
    return 1 if figures.wrong else 0


def _write(json: str, docs: str, figures: Sequence[Figures], where: Sequence[str], *, complete: bool) -> None:
    if json:
        everything = {
            "surroundings": where,
            "figures": [asdict(figure) for figure in figures],
            "ratios": [asdict(ratio) for ratio in ratios(figures)],
        }
        text = orjson.dumps(everything, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        if json == "-":
            sys.stdout.buffer.write(text)
        else:
            Path(json).write_bytes(text)
    if docs or complete:
        target = Path(docs) if docs else _DOCS
        target.write_text(report.markdown(figures, where, _ABOUT.read_text()))
        _STDERR.print(f"wrote {target.name}")
    else:
        _STDERR.print(
            f"docs/benchmarks.md is left alone: that takes a full run of at least {FULL:,} records, or --docs"
        )


if __name__ == "__main__":
    app()
