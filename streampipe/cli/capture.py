"""streampipe capture."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from streampipe.brokers.port import Admin, Broker
from streampipe.cli.output import Output
from streampipe.cli.session import existing_topic, session_of
from streampipe.cli.topic import JsonFlag
from streampipe.errors import ConfigError
from streampipe.observe.reading import read_between
from streampipe.observe.slices import write_slice
from streampipe.records import Headers, Record, RecordBatch, TopicPartition, records_of
from streampipe.replay.positions import offsets_at, parse_position


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        "capture", epilog="Example: streampipe capture flights planes --from '2h ago' --max 200 --out slice.jsonl.gz"
    )(capture)


def capture(
    context: typer.Context,
    topics: Annotated[list[str], typer.Argument(help="Topics to take records of")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write; compressed if its name ends in .gz")],
    start: Annotated[str, typer.Option("--from", metavar="TIME|OFFSET|earliest", help="Where to begin")] = "earliest",
    end: Annotated[str, typer.Option("--until", metavar="TIME|OFFSET|latest", help="Where to end")] = "latest",
    limit: Annotated[int | None, typer.Option("--max", min=1, help="At most so many records of each topic")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Keep a stretch of topics in a file for tests: committed records byte for byte, with their schemas.

    `TopologyTestDriver.play` lets a processor consume it. The file holds real data: treat it as you would the topics.
    """
    session = session_of(context)
    settings = session.settings()
    broker = session.broker(settings)
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: folder {out.parent} does not exist")
    with session.admin(broker) as admin, session.registry(settings) as registry:
        records = [r for t in topics for r in _of(broker, admin, session.out, t, start, end, limit)]
        count = write_slice(out, records, registry.by_id)
    if as_json:
        session.out.json({"file": str(out), "records": count, "topics": topics})
    else:
        session.out.note(f"{count:,} records of {', '.join(topics)} in {out}")


def _of(
    broker: Broker, admin: Admin, out: Output, topic: str, start: str, end: str, limit: int | None
) -> Iterator[Record]:
    now_ms = time.time_ns() // 1_000_000
    partitions = [TopicPartition(topic, p) for p in range(existing_topic(admin, topic))]
    starts = offsets_at(admin, partitions, parse_position(start, now_ms))
    ends = offsets_at(admin, partitions, parse_position(end, now_ms))
    total = sum(max(0, ends[p] - starts[p]) for p in partitions)
    columns = (TextColumn("reading {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = out.stderr.is_terminal and not out.quiet
    with Progress(*columns, console=out.stderr, transient=True, disable=not shown) as progress:
        task = progress.add_task(topic, total=total if limit is None else min(limit, total))
        batches = read_between(broker, starts, ends, min(limit or 1_000, 1_000))
        left_out: list[str] = []
        for record in islice((record for batch in batches for record in _records(batch, left_out)), limit):
            progress.advance(task)
            yield record
    if left_out:
        out.warn(
            f"{len(left_out):,} records without their headers, since a header's name is not UTF-8: {left_out[0]}"
            + (" and others" if left_out[1:] else "")
        )


def _records(batch: RecordBatch, left_out: list[str]) -> list[Record]:
    def without(row: int) -> Headers:
        left_out.append(f"{batch.topic}[{batch.partitions[row]}]@{batch.offsets[row]}")
        return ()

    return records_of(batch, without)
