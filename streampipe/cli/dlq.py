"""streampipe dlq list | show."""

from __future__ import annotations

from typing import Annotated

import typer

from streampipe.cli.output import iso, printable
from streampipe.cli.session import session_of
from streampipe.cli.topic import JsonFlag
from streampipe.errors import ConfigError
from streampipe.observe.dead_letters import DeadLetter, dead_letter_topic, list_dead_letters, one_dead_letter
from streampipe.observe.values import Value, ValueReader, json_bytes, text_of
from streampipe.policies import FAILURE_CLASSES
from streampipe.records import TopicPartition

HEADINGS = {
    "at": "at", "timestamp": "time", "class": "class", "stage": "stage", "origin": "origin", "key": "key",
    "message": "message",
}  # fmt: skip
SPARE = ("timestamp", "stage", "key")
"""Columns that a narrow terminal does without: `dlq show` has them."""


def add_to(app: typer.Typer) -> None:
    """Add this group of commands."""
    group = typer.Typer(help="Look at dead letters.", no_args_is_help=True)
    group.command("list", epilog="Example: streampipe dlq list flight-delays --class validation")(list_letters)
    group.command("show", epilog="Example: streampipe dlq show flight-delays-dlq 0 17")(show)
    app.add_typer(group, name="dlq")


def list_letters(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the processor, or of the dead letter topic")],
    failure_class: Annotated[
        str | None, typer.Option("--class", metavar="CLASS", help=f"Only this one: {', '.join(FAILURE_CLASSES)}")
    ] = None,
    limit: Annotated[int, typer.Option("--max", min=1, help="So many of the newest, at most")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List the newest dead letters and why they failed."""
    if failure_class is not None and failure_class not in FAILURE_CLASSES:
        raise ConfigError(f"--class {failure_class}: it must be one of {', '.join(FAILURE_CLASSES)}")
    session = session_of(context)
    broker = session.broker()
    with session.admin(broker) as admin:
        topic = dead_letter_topic(admin, name)
        letters = list_dead_letters(broker, admin, topic, failure_class, limit)
    rows = [_row(letter) for letter in letters]
    if as_json:
        session.out.json([{**row, "errors": dict(letter.errors)} for row, letter in zip(rows, letters, strict=True)])
        return
    shown = [
        {**row, "at": f"[{letter.partition}]@{letter.offset}", "message": _reason(letter)}
        for row, letter in zip(rows, letters, strict=True)
    ]
    session.out.rows(HEADINGS, shown, SPARE)
    session.out.note(f"{len(rows)} dead letter(s) of {topic}")


def show(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(help="Dead letter topic, or name of the processor")],
    partition: Annotated[int, typer.Argument(min=0)],
    offset: Annotated[int, typer.Argument(min=0)],
    as_json: JsonFlag = False,
) -> None:
    """Show one dead letter whole: all headers and the value, decoded where possible, else as a hex dump."""
    session = session_of(context)
    settings = session.settings()
    broker = session.broker(settings)
    with session.admin(broker) as admin:
        at = TopicPartition(dead_letter_topic(admin, topic), partition)
        letter = one_dead_letter(broker, admin, at, offset)
    with session.registry(settings) as registry:
        value = ValueReader(registry).read([letter.value])[0]
    if as_json:
        raw = letter.value.hex() if letter.value is not None else None
        details = {"errors": dict(letter.errors), "headers": [(n, text_of(v)) for n, v in letter.headers]}
        session.out.json({**_row(letter), **details, "value": value.event, "problem": value.problem, "raw": raw})
        return
    for line in _lines(letter, value):
        session.out.line(line)


def _reason(letter: DeadLetter) -> str | None:
    """The message; what a function raised, whose own words stay out of headers, with the name of the exception."""
    message, exception = letter.errors.get("message"), letter.errors.get("exception")
    return f"{exception} {message}" if letter.errors.get("class") == "processing" and exception else message


def _row(letter: DeadLetter) -> dict[str, object]:
    errors = letter.errors
    place = f"{errors.get('topic', '?')}[{errors.get('partition', '?')}]@{errors.get('offset', '?')}"
    return {
        "topic": letter.topic, "partition": letter.partition, "offset": letter.offset,
        "timestamp": iso(letter.timestamp), "key": text_of(letter.key), "origin": place,
        "class": errors.get("class"), "stage": errors.get("stage"), "message": errors.get("message"),
    }  # fmt: skip


def _lines(letter: DeadLetter, value: Value) -> list[str]:
    lines = [f"{letter.topic}[{letter.partition}]@{letter.offset}", f"time       {iso(letter.timestamp) or '-'}"]
    lines.append(f"key        {printable(text_of(letter.key) or '-')}")
    lines += [f"{name:<10} {printable(text)}" for name, text in letter.errors.items()]
    lines += [f"header     {printable(name)}: {printable(text_of(data) or '-')}" for name, data in letter.headers]
    if letter.value is None:
        return [*lines, "value      (tombstone)"]
    if value.event is not None:
        return [*lines, f"value      {printable(json_bytes(value.event).decode())}"]
    return [*lines, f"value      {len(letter.value):,} bytes, not decoded: {value.problem}", *hex_dump(letter.value)]


def hex_dump(data: bytes) -> list[str]:
    """Sixteen bytes a line: offset, hexadecimal digits, printable ASCII."""
    chunks = [(at, data[at : at + 16]) for at in range(0, len(data), 16)]
    return [
        f"  {at:08x}  {chunk.hex(' '):<47}  {''.join(chr(b) if 32 <= b < 127 else '.' for b in chunk)}"
        for at, chunk in chunks
    ]
