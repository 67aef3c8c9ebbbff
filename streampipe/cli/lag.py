"""streampipe lag."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated

import typer

from streampipe.cli.output import Output, duration
from streampipe.cli.session import session_of
from streampipe.cli.topic import JsonFlag
from streampipe.observe.lag import LagReader, PartitionLag

HEADINGS = {
    "partition": "partition", "committed": "committed", "end": "end", "records": "lag (records)", "time": "lag (time)",
    "note": "",
}  # fmt: skip


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command("lag", epilog="Example: streampipe lag flight-delays --watch")(lag)


def lag(
    context: typer.Context,
    group: Annotated[str, typer.Argument(help="Consumer group: the name of the processor")],
    as_json: JsonFlag = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds until interrupted")] = False,
) -> None:
    """Show how far a group is behind, in records and in time, whether or not its workers are alive.

    Lag in time is the age of the oldest record that is not committed. A dash is unknown, which is not zero.
    """
    session = session_of(context)
    reader = LagReader(session.broker())
    try:
        while True:
            _show(session.out, group, reader.group(group), as_json=as_json)
            if not watch:
                return
            time.sleep(2.0)
    finally:
        reader.close()


def _show(out: Output, group: str, lags: list[PartitionLag], *, as_json: bool) -> None:
    known = [lag.records for lag in lags if lag.records is not None]
    seconds = [lag.seconds for lag in lags if lag.seconds is not None]
    totals = {"records": sum(known) if known else None, "seconds": max(seconds, default=None)}
    if as_json:
        out.json({"group": group, **totals, "partitions": [dataclasses.asdict(lag) for lag in lags]})
        return
    rows = [
        {**dataclasses.asdict(lag), "partition": f"{lag.topic}[{lag.partition}]", "time": duration(lag.seconds),
         "note": _note(lag)}
        for lag in lags
    ]  # fmt: skip
    rows.append({"partition": "total", "records": totals["records"], "time": duration(totals["seconds"]), "note": ""})
    shown = {key: heading for key, heading in HEADINGS.items() if key != "note" or any(row["note"] for row in rows)}
    out.rows(shown, rows)


def _note(lag: PartitionLag) -> str:
    if lag.committed is None and lag.records is None:
        return "nothing committed yet"
    if lag.lost:
        return f"{lag.lost:,} records were removed by retention before they were read"
    return "records: at most, offsets are missing" if lag.is_upper_bound else ""
