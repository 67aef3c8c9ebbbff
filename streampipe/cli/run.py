"""streampipe run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streampipe.cli.session import session_of
from streampipe.cli.status import summarize
from streampipe.cli.working import Work, prepare, run_one, run_several
from streampipe.errors import ConfigError
from streampipe.runtime.load import load_processor

Module = Annotated[str, typer.Argument(help="Module with the processor: pkg.module or path/file.py, perhaps :NAME")]
Slot = Annotated[int | None, typer.Option("--slot", hidden=True)]
Report = Annotated[str | None, typer.Option("--report", hidden=True)]
JsonSummary = Annotated[bool, typer.Option("--json", help="Print the summary as JSON")]


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command("run", epilog="Example: streampipe run processors/flights_enriched.py --workers 2")(run)


def run(
    context: typer.Context,
    module: Module,
    workers: Annotated[int, typer.Option(min=1, help="Number of worker processes")] = 1,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when everything that is there now is processed")
    ] = False,
    close_windows: Annotated[
        bool, typer.Option("--close-windows", help="With --until-caught-up: close the windows still open at the end")
    ] = False,
    at_least_once: Annotated[
        bool, typer.Option("--at-least-once", help="No transactions: a crash may repeat output")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Records handled at a time, at most")] = None,
    commit_interval: Annotated[int | None, typer.Option(min=1, metavar="MS", help="Time between commits")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port of /metrics, /livez and /readyz")] = None,
    slot: Slot = None,
    report: Report = None,
    as_json: JsonSummary = False,
) -> None:
    """Run a processor until interrupted: Ctrl-C commits what is processed and ends, a second one ends at once.

    Worker n serves its metrics on port + n. At the end a summary says what became of the records.
    """
    if close_windows and not until_caught_up:
        raise ConfigError("--close-windows needs --until-caught-up: an endless input has no end to close them at")
    session = session_of(context)
    settings = session.settings(
        batch_size=batch_size, commit_interval_ms=commit_interval, http_port=port,
        guarantee="at-least-once" if at_least_once else None,
    )  # fmt: skip
    work = Work(
        session, settings, load_processor(module).topology, until_caught_up=until_caught_up,
        close_windows=close_windows,
    )  # fmt: skip
    broker = session.broker(settings)
    if slot is not None and report is not None:
        session.out.share_terminal()
        raise typer.Exit(run_one(work, broker, slot, Path(report))[0])
    prepare(work, broker)
    if workers == 1:
        code, done = run_one(work, broker, 0, None)
    else:
        flags = {
            "--until-caught-up": until_caught_up, "--close-windows": close_windows, "--at-least-once": at_least_once,
        }  # fmt: skip
        values = {"--batch-size": batch_size, "--commit-interval": commit_interval, "--port": port}
        options = [name for name, given in flags.items() if given]
        options += [text for name, value in values.items() if value is not None for text in (name, str(value))]
        code, done = run_several(
            work, workers, lambda n, folder: ["run", module, *options, "--slot", str(n), "--report", str(folder)]
        )
    summarize(session.out, done, work.sources, as_json=as_json)
    raise typer.Exit(code)
