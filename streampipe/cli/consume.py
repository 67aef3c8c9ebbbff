"""streampipe consume."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from streampipe.cli.output import Output, iso, printable
from streampipe.cli.session import existing_topic, session_of
from streampipe.cli.topic import JsonFlag
from streampipe.observe.reading import follow, read_between
from streampipe.observe.values import Value, ValueReader, json_bytes, text_of
from streampipe.records import RecordBatch, TopicPartition
from streampipe.replay.positions import offsets_at, parse_position


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command("consume", epilog="Example: streampipe consume flights --from '2h ago' --max 10 --json")(consume)


def consume(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(help="Topic to read")],
    start: Annotated[
        str, typer.Option("--from", metavar="TIME|OFFSET|earliest|latest", help="Where to begin, in each partition")
    ] = "earliest",
    limit: Annotated[int | None, typer.Option("--max", min=1, help="Stop after so many records")] = None,
    endless: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new records until interrupted")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print the records of a topic, decoded, without joining any group.

    Only committed records appear. With --json each record is one line of JSON; a value that cannot be decoded has
    an "error" and its bytes as "raw".
    """
    session = session_of(context)
    settings = session.settings()
    broker = session.broker(settings)
    with session.admin(broker) as admin:
        partitions = [TopicPartition(topic, p) for p in range(existing_topic(admin, topic))]
        starts = offsets_at(admin, partitions, parse_position(start, time.time_ns() // 1_000_000))
        ends = admin.offsets(partitions, "latest")
    chunk = min(limit or 1_000, 1_000)
    batches = follow(broker, starts, chunk) if endless else read_between(broker, starts, ends, chunk)
    with session.registry(settings) as registry:
        for batch in _first(batches, limit):
            _show(session.out, batch, ValueReader(registry).read(batch.values), as_json=as_json)


def _first(batches: Iterable[RecordBatch], limit: int | None) -> Iterator[RecordBatch]:
    left = limit
    for batch in batches:
        if left is not None and len(batch) >= left:
            yield batch.slice(0, left)
            return
        yield batch
        left = None if left is None else left - len(batch)


def _show(out: Output, batch: RecordBatch, values: list[Value], *, as_json: bool) -> None:
    times, places = batch.timestamps.tolist(), zip(batch.partitions.tolist(), batch.offsets.tolist(), strict=True)
    for row, (partition, offset) in enumerate(places):
        key, value, when = text_of(batch.keys[row]), values[row], iso(times[row])
        raw = batch.values[row]
        if as_json:
            line: dict[str, object] = {
                "topic": batch.topic, "partition": partition, "offset": offset, "timestamp": when, "key": key,
                "value": value.event,
            }  # fmt: skip
            if value.problem is not None and raw is not None:
                line |= {"error": value.problem, "raw": raw.hex()}
            out.json(line)
        else:
            shown = "(tombstone)" if raw is None else json_bytes(value.event).decode()
            if value.problem is not None and raw is not None:
                shown = f"0x{raw.hex()} ({value.problem})"
            place = f"{batch.topic}[{partition}]@{offset}"
            out.line(printable(f"{place}  {when or '-'}  {'-' if key is None else key}  {shown}"))
