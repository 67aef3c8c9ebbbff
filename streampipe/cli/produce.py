"""streampipe produce."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import polars as pl
import pyarrow as pa
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from streampipe.brokers.port import Producer
from streampipe.cli.output import Output
from streampipe.cli.rows import BadLine, Chunk, InputFile, Rows, open_input
from streampipe.cli.session import Session, existing_topic, readable, session_of
from streampipe.cli.topic import JsonFlag
from streampipe.errors import ConfigError, StreampipeError
from streampipe.records import IntArray, ProduceBatch
from streampipe.schemas.codec import AvroEncoder, parse_record
from streampipe.schemas.keys import encode_keys

LISTED = 20
"""Bad lines that are named; the others are counted."""


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command(
        "produce",
        epilog="Example: streampipe produce flights --schema schemas/flights.avsc --key origin "
        "--timestamp time_hour --partitions 4 data/nycflights13/flights.csv.gz",
    )(produce)


@dataclass(slots=True)
class Sending:
    """How records of a file are made, and what came of it."""

    topic: str
    encoder: AvroEncoder
    producer: Producer
    keys: tuple[str, ...]
    timestamp: str | None
    sent: int = 0
    skipped: list[BadLine] = field(default_factory=list)

    def send(self, chunk: Chunk, name: str, *, skip_bad: bool) -> None:
        """Send a chunk and wait for the broker. Raises StreampipeError at a bad line, with nothing of it sent."""
        for column in {*self.keys, *([self.timestamp] if self.timestamp else [])} - set(chunk.columns.schema.names):
            raise StreampipeError(f"{name}: column {column!r}, wanted for the key or the timestamp, is missing")
        encoded = self.encoder.encode(chunk.columns)
        bad = [*chunk.bad, *(BadLine(chunk.lines[f.row], f.message) for f in encoded.failures)]
        columns = chunk.columns if encoded.rows is None else chunk.columns.take(pa.array(encoded.rows))
        lines = chunk.lines if encoded.rows is None else [chunk.lines[row] for row in encoded.rows.tolist()]
        times = self._times(columns, lines, bad)
        if bad and not skip_bad:
            first = min(bad, key=lambda one: one.line)
            more = f" (and {len(bad) - 1} more lines nearby)" if len(bad) > 1 else ""
            raise StreampipeError(
                f"{name}:{first.line}: {first.reason}{more}; {self.sent:,} records before were sent, none of this "
                f"chunk; repair the line or leave bad ones out with --skip-bad"
            )
        self.skipped += bad
        good = np.arange(len(lines)) if times is None else np.flatnonzero(times >= 0)
        batch = self._batch(columns, encoded.values, times, good)
        if len(batch):
            self.producer.produce(batch)
            self.producer.flush()
            self.sent += len(batch)

    def _batch(self, columns: pa.RecordBatch, values: list[bytes], times: np.ndarray | None, good: np.ndarray) -> (
        ProduceBatch
    ):  # fmt: skip
        keys: list[bytes | None] = [None] * len(values)
        if self.keys and len(values):
            keys = list(encode_keys([pl.Series(pl.from_arrow(columns.column(name))) for name in self.keys]))
        rows = good.tolist()
        return ProduceBatch(
            self.topic,
            [keys[row] for row in rows],
            [values[row] for row in rows],
            None if times is None else times[good].tolist(),
        )

    def _times(self, columns: pa.RecordBatch, lines: list[int], bad: list[BadLine]) -> IntArray | None:
        """Timestamps in ms, -1 for the rows added to `bad`."""
        if self.timestamp is None:
            return None
        column = columns.column(self.timestamp)
        if pa.types.is_temporal(column.type):
            column = column.cast(pa.timestamp("ms", column.type.tz if pa.types.is_timestamp(column.type) else None))
        times: IntArray = column.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        bad += [
            BadLine(lines[row], f"field {self.timestamp!r} is no time from 1970 on")
            for row in np.flatnonzero(times < 0).tolist()
        ]
        return times


def produce(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(help="Topic to write to")],
    file: Annotated[
        str, typer.Argument(help="FILE.jsonl or FILE.csv, perhaps with .gz; - reads JSON lines from stdin")
    ],
    schema: Annotated[str, typer.Option(metavar="FILE.avsc", help="Avro schema of the values")],
    key: Annotated[str, typer.Option(metavar="FIELD[,FIELD]", help="Fields that make the record key")] = "",
    timestamp: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Field with the record's time; else now")
    ] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Create the topic with so many partitions if it is missing")
    ] = None,
    na: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="CSV cells that mean null (default: empty and NA)")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad lines out and list them")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a file of records to a topic, each line validated against the schema, which gets registered.

    Times are ISO-8601 (in UTC unless they say otherwise) or milliseconds since the epoch. A bad line stops the
    command before anything of its chunk is sent, unless --skip-bad.
    """
    session = session_of(context)
    text = readable(schema).read_text("utf-8")
    node = parse_record(text, schema)
    started = time.monotonic()
    with open_input(file) as source, _sending(session, topic, text, key, timestamp, partitions) as sending:
        rows = Rows(source, node, sending.encoder.arrow, ("", "NA") if na is None else na)
        with _progress(session.out, source) as update:
            for chunk in rows:
                sending.send(chunk, source.name, skip_bad=skip_bad)
                update()
    _report(session.out, sending, rows, time.monotonic() - started, as_json=as_json)


@contextmanager
def _sending(
    session: Session, topic: str, text: str, key: str, timestamp: str | None, partitions: int | None
) -> Iterator[Sending]:
    settings = session.settings()
    broker = session.broker(settings)
    with session.admin(broker) as admin:
        if partitions is not None:
            admin.create_topic(topic, partitions)
        existing_topic(admin, topic)
    with session.registry(settings) as registry:
        encoder = AvroEncoder(text, registry.register(f"{topic}-value", text))
    keys = tuple(name.strip() for name in key.split(",")) if key else ()
    for name in (*keys, *([timestamp] if timestamp else [])):
        if name not in encoder.arrow.names:
            raise ConfigError(f"field {name!r} is not in the schema, which has {', '.join(encoder.arrow.names)}")
    producer = broker.producer()
    try:
        yield Sending(topic, encoder, producer, keys, timestamp)
    finally:
        producer.close()


@contextmanager
def _progress(out: Output, source: InputFile) -> Iterator[Callable[[], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    shown = out.stderr.is_terminal and not out.quiet
    with Progress(*columns, console=out.stderr, transient=True, disable=not shown) as progress:
        task = progress.add_task(source.name, total=source.size)
        yield lambda: progress.update(task, completed=source.done)


def _report(out: Output, sending: Sending, rows: Rows, seconds: float, *, as_json: bool) -> None:
    if rows.ignored:
        out.warn(f"not in the schema, left out: {', '.join(sorted(rows.ignored))}")
    for bad in sending.skipped[:LISTED]:
        out.warn(f"line {bad.line} left out: {bad.reason}")
    if len(sending.skipped) > LISTED:
        out.warn(f"{len(sending.skipped) - LISTED:,} more lines left out")
    if as_json:
        out.json({
            "topic": sending.topic, "records": sending.sent, "skipped": len(sending.skipped),
            "schema_id": sending.encoder.schema_id, "seconds": round(seconds, 3),
        })  # fmt: skip
    else:
        out.note(f"{sending.sent:,} records to {sending.topic} in {seconds:.1f} s, {len(sending.skipped):,} left out")
