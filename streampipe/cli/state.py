"""streampipe state: what a processor knows."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streampipe.brokers.port import Admin
from streampipe.cli.output import Output, iso
from streampipe.cli.run import Module
from streampipe.cli.session import Session, session_of
from streampipe.cli.topic import JsonFlag
from streampipe.errors import ConfigError, NotFound
from streampipe.observe.state import StateReader
from streampipe.observe.values import text_of
from streampipe.replay.positions import parse_position
from streampipe.runtime.load import load_processor
from streampipe.runtime.reset import plan_reset, reset

StoreName = Annotated[str, typer.Argument(help="Name of the store; see: streampipe state list MODULE")]
WindowTime = Annotated[str | None, typer.Option("--window", metavar="TIME", help="Only windows that this time is in")]

state = typer.Typer(help="Look into tables, open windows and other state, or forget it.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands."""
    state.command("list", epilog="Example: streampipe state list delays.py")(list_stores)
    state.command("get", epilog="Example: streampipe state get delays.py window-1 JFK --window 2013-01-05T10:30")(get)
    state.command("scan", epilog="Example: streampipe state scan delays.py window-1 --max 20 --json")(scan)
    state.command(
        "reset",
        epilog="Examples: streampipe state reset delays.py window-1; streampipe state reset delays.py --rebuild",
    )(reset_stores)
    app.add_typer(state, name="state")


def list_stores(context: typer.Context, module: Module, as_json: JsonFlag = False) -> None:
    """List the stores of a processor, and the topic that each can be rebuilt from."""
    session = session_of(context)
    with _reader(session, module) as (reader, admin):
        rows = [dataclasses.asdict(store) for store in reader.stores(admin)]
    headings = {"name": "store", "kind": "kind", "topic": "topic", "partitions": "partitions",
                "records": "records (at most)"}  # fmt: skip
    session.out.data(headings, rows, as_json=as_json)


def get(
    context: typer.Context,
    module: Module,
    store: StoreName,
    key: Annotated[str, typer.Argument(help="The record key as text, as `streampipe consume` shows it")],
    window: WindowTime = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a store holds for one key, in every window that is open or in one.

    It is the state as of the last commit, read from the store's topic: the processor may run or not.
    """
    session = session_of(context)
    rows = [row for row in _rows(session, module, store, window) if row["key"] == key]
    if not rows:
        within = f" in a window that {window} is in" if window else ""
        raise NotFound(f"store {store!r} holds nothing for key {key!r}{within}")
    _show(session.out, rows, as_json=as_json)


def scan(
    context: typer.Context,
    module: Module,
    store: StoreName,
    window: WindowTime = None,
    limit: Annotated[int | None, typer.Option("--max", min=1, help="Stop after so many entries")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show everything that a store holds.

    It is the state as of the last commit, read from the store's topic: the processor may run or not.
    """
    session = session_of(context)
    rows = list(islice(_rows(session, module, store, window), limit))
    _show(session.out, rows, as_json=as_json)
    session.out.note(f"{len(rows):,} entries of {store}")


def reset_stores(
    context: typer.Context,
    module: Module,
    stores: Annotated[list[str] | None, typer.Argument(help="Stores to forget; by default all of them")] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Read the inputs again from their start; outputs are written again")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Forget the state of a processor that does not run: start from nothing, or rebuild it from the input.

    Without --rebuild the group goes on where it is, with empty state. If it is interrupted, run it again before a
    worker starts.
    """
    session = session_of(context)
    topology = load_processor(module).topology
    with session.admin() as admin:
        plan = plan_reset(topology, admin, stores or (), rebuild=rebuild)
        rewound = [f"{tp} to {offset}" for tp, offset in sorted(plan.rewind.items())]
        rows = [
            *({"what": "delete", "where": topic} for topic in plan.deleted),
            *({"what": "rewind", "where": where} for where in rewound),
            *({"what": "write again", "where": topic} for topic in plan.repeated),
        ]
        session.out.data({"what": "what", "where": "where"}, rows, as_json=as_json)
        if not rows:
            session.out.note(f"processor {plan.group} has no state to forget")
            return
        _agreed(yes)
        reset(plan, admin)
    session.out.note(f"state of processor {plan.group} is reset; the next run makes its topics anew")


def _agreed(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("state is forgotten for good: say --yes where nobody can be asked")
    if not typer.confirm("Forget it?", err=True):
        raise typer.Exit(1)


@contextmanager
def _reader(session: Session, module: str) -> Iterator[tuple[StateReader, Admin]]:
    settings = session.settings()
    topology = load_processor(module).topology
    broker = session.broker(settings)
    with session.admin(broker) as admin, session.registry(settings) as registry:
        yield StateReader(topology, broker, registry, settings.schemas), admin


def _rows(session: Session, module: str, store: str, window: str | None) -> Iterator[dict[str, Any]]:
    at_ms = None if window is None else _time(window)
    with _reader(session, module) as (reader, admin), _progress(session.out, store) as progress:
        for row in reader.rows(admin, store, progress, at_ms):
            columns = row.pop("columns")
            row |= {"key": text_of(row["key"]), "timestamp": iso(row["timestamp"])}
            yield row | {name: value for name, value in columns.items() if name not in row}


def _time(window: str) -> int:
    position = parse_position(window, time.time_ns() // 1_000_000)
    if position.kind != "time":
        raise ConfigError(f"--window {window}: give a time, such as 2024-01-31T06:00")
    return position.value


def _show(out: Output, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            out.json(row)
        return
    shown = [
        {k: iso(round(v.timestamp() * 1000)) if isinstance(v, datetime) else v for k, v in r.items()} for r in rows
    ]
    headings = {name: name for row in rows for name in row}
    if not any(row["timestamp"] for row in rows):
        headings.pop("timestamp", None)
    out.rows(headings, shown, spare=["partition", "timestamp"])


@contextmanager
def _progress(out: Output, store: str) -> Iterator[Any]:
    columns = (TextColumn("reading {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = out.stderr.is_terminal and not out.quiet
    with Progress(*columns, console=out.stderr, transient=True, disable=not shown) as progress:
        task = progress.add_task(store, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
