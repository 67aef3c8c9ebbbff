"""streampipe replay."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from streampipe.cli.output import Output
from streampipe.cli.run import Module, Report, Slot
from streampipe.cli.session import Session, session_of
from streampipe.cli.status import summarize
from streampipe.cli.topic import JsonFlag
from streampipe.cli.working import Work, prepare, run_one, run_several
from streampipe.replay.plan import ReplayPlan, begin, make_plan, renamed, until_from_bytes, until_to_bytes
from streampipe.replay.positions import parse_position
from streampipe.runtime.load import load_processor
from streampipe.topology.nodes import Topology

Place = "TIME|OFFSET|earliest|latest"
HEADINGS = {"topic": "input", "partition": "partition", "start": "from", "end": "until", "records": "records"}


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        "replay",
        epilog="Example: streampipe replay processors/flights_enriched.py --from 2013-01-15 --into=-again --dry-run",
    )(replay)


def replay(
    context: typer.Context,
    module: Module,
    into: Annotated[str, typer.Option(metavar="SUFFIX", help="What its group and output topics are named with")],
    start: Annotated[str, typer.Option("--from", metavar=Place, help="Where to begin")] = "earliest",
    until: Annotated[str, typer.Option("--until", metavar=Place, help="Where to end")] = "latest",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a replay that was interrupted")] = False,
    close_windows: Annotated[
        bool, typer.Option("--close-windows", help="Close the windows still open at the end")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Number of worker processes")] = 1,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of /metrics; none by default")] = None,
    slot: Slot = None,
    report: Report = None,
    ends: Annotated[str | None, typer.Option("--ends", hidden=True)] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a processor again over the past, apart from the live one, and stop at the end.

    The group, state, dead letters and every output topic get the suffix; the live group is not touched. Windows
    follow the records' time alone, however long ago that was.
    """
    session = session_of(context)
    # Its port would be the live worker's, which may well run beside it.
    settings = dataclasses.replace(session.settings(), http_port=port)
    topology = renamed(load_processor(module).topology, into)
    work = Work(session, settings, topology, close_windows=close_windows, replay=True)
    broker = session.broker(settings)
    if slot is not None and report is not None and ends is not None:
        session.out.share_terminal()
        work = dataclasses.replace(work, until=until_from_bytes(Path(ends).read_bytes()))
        raise typer.Exit(run_one(work, broker, slot, Path(report))[0])
    plan = _plan(session, topology, start, until, resume=resume)
    if dry_run:
        show(session.out, plan, as_json=as_json)
        return
    work = dataclasses.replace(work, until=plan.until)
    prepare(work, broker)
    with session.admin(broker) as admin:
        begin(plan, admin)
    session.out.note(
        f"replay of {plan.records:,} records (at most) in group {plan.group} into {', '.join(plan.outputs)}"
    )
    if workers == 1:
        code, done = run_one(work, broker, 0, None, plan.records)
    else:
        with tempfile.NamedTemporaryFile(prefix="streampipe-") as file:
            file.write(until_to_bytes(plan))
            file.flush()
            given = ["replay", module, f"--into={into}", "--ends", file.name]
            given += ["--close-windows"] if close_windows else []
            given += ["--port", str(port)] if port is not None else []
            code, done = run_several(
                work, workers, lambda n, folder: [*given, "--slot", str(n), "--report", str(folder)], plan.records
            )
    summarize(session.out, done, work.sources, as_json=as_json, show_latency=False)
    raise typer.Exit(code)


def show(out: Output, plan: ReplayPlan, *, as_json: bool) -> None:
    """Print a plan."""
    rows = [{**dataclasses.asdict(stretch), "records": stretch.records} for stretch in plan.stretches]
    if as_json:
        out.json({"group": plan.group, "outputs": plan.outputs, "records": plan.records, "inputs": rows})
        return
    out.rows(HEADINGS, rows)
    out.line(f"{plan.records:,} records at most, in group {plan.group}, into {', '.join(plan.outputs)}")


def _plan(session: Session, topology: Topology, start: str, until: str, *, resume: bool) -> ReplayPlan:
    now_ms = time.time_ns() // 1_000_000
    with session.admin() as admin:
        return make_plan(topology, admin, parse_position(start, now_ms), parse_position(until, now_ms), resume=resume)
