"""The demo: `python -m demo [--broker local|kafka] [--keep] [--json]`. Ends with 1 when the numbers do not add up."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from demo.broken import PROCESSORS
from demo.dataset import ROOT
from demo.load import load
from demo.place import Place
from demo.report import as_json, show
from demo.results import Results, collect, mistakes
from demo.workers import run
from streampipe.errors import StreampipeError

FOLDER = Path(".streampipe") / "demo"


def main() -> int:
    """Run the demo; an exit code."""
    options = _options()
    os.chdir(ROOT)
    notes = Console(stderr=True, highlight=False)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    try:
        with _place(options.broker, notes) as place:
            results = demo(place, FOLDER, notes)
            wrong = mistakes(results)
            _print(results, wrong, json_only=options.json)
            if options.keep:
                _keep(place, options.broker, notes)
    except StreampipeError as error:  # the workers' logs stay
        notes.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        shutil.rmtree(FOLDER, ignore_errors=True)
        return 130
    if not options.keep and not wrong:
        shutil.rmtree(FOLDER, ignore_errors=True)
    return 1 if wrong else 0


def demo(place: Place, folder: Path, notes: Console) -> Results:
    """Load, process and collect, saying what is going on."""
    started = time.monotonic()
    notes.print("Loading January 2013 of New York City's flights ...")
    loaded = load(place, lambda line: notes.print(f"  {line}"))
    notes.print(f"  loaded in {time.monotonic() - started:.1f} s\nProcessing it with three workers ...")
    columns = (TextColumn("  {task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes) as progress:
        bars = {name: progress.add_task(name, total=loaded) for name in PROCESSORS}
        finished = run(place, folder, lambda name, done: progress.update(bars[name], completed=done))
    notes.print("Reading back what came out ...")
    return collect(place, loaded, finished)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description="A month of real flights, end to end.")
    parser.add_argument("--broker", choices=("local", "kafka"), default="local", help="embedded log or a real Kafka")
    parser.add_argument("--keep", action="store_true", help="keep the topics to look around in afterwards")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of tables")
    return parser.parse_args()


@contextmanager
def _place(kind: str, notes: Console) -> Iterator[Place]:
    if kind == "local":
        yield Place(f"local:{FOLDER / 'broker.db'}", f"local:{FOLDER / 'registry.db'}")
        return
    from streampipe.testing.stack import Stack

    notes.print("Starting Apache Kafka and a schema registry (downloads them once) ...")
    with Stack(registry=True) as stack:
        yield Place(f"kafka:{stack.bootstrap}", stack.registry_url)


def _print(results: Results, wrong: list[str], *, json_only: bool) -> None:
    if json_only:
        sys.stdout.write(json.dumps({**as_json(results), "mistakes": wrong}) + "\n")
        return
    console = Console(highlight=False)
    show(results, console)
    for line in wrong:
        console.print(f"[bold red]does not add up:[/] {line}", soft_wrap=True)
    if not wrong:
        console.print("\n[green]All of it adds up.[/]")


def _keep(place: Place, kind: str, notes: Console) -> None:
    notes.print(
        f"\nLook around with:\n  export STREAMPIPE_BROKER={place.broker} STREAMPIPE_REGISTRY={place.registry}",
        soft_wrap=True,
    )
    for command in ("topic list", "dlq list delays-hourly", "consume delay-alerts --max 5"):
        notes.print(f"  streampipe {command}")
    if kind == "kafka":
        notes.print("Ctrl-C ends Kafka and the registry.")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            notes.print("ended")


if __name__ == "__main__":
    sys.exit(main())
