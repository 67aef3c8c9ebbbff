"""Data to stdout, everything else to stderr, and one line for an error."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from streampipe.observe.values import json_bytes

PIPE_WIDTH = 10_000
"""Columns of a table that goes into a pipe or a file: as many as it takes, nothing is cut."""


def printable(text: str) -> str:
    """Text of unknown origin with its control characters escaped: one line, and no commands to the terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def cell(value: object) -> str:
    """A value as people read it: a dash for nothing, thousands separated, keys and values of bytes as text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return printable(value if isinstance(value, str) else str(value))


def iso(timestamp_ms: int | None) -> str | None:
    """A time as ISO-8601 in UTC with milliseconds; None for none, and the number itself beyond the calendar."""
    if timestamp_ms is None or timestamp_ms < 0:
        return None
    try:
        moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(timestamp_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.4 s, 42 s, 7 min 03 s, 5 h 12 min. Infinite is what no bucket holds."""
    if seconds is None:
        return "-"
    if math.isinf(seconds):
        return "over an hour"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


class _OverLine(io.TextIOWrapper):
    """Text that first erases the line which the cursor is in."""

    def write(self, text: str) -> int:
        return super().write(f"\r\x1b[2K{text}")


class Output:
    """Where a command's words go. `quiet` silences notes; data and errors always show."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.stderr = Console(stderr=True, highlight=False, soft_wrap=True)

    def share_terminal(self) -> None:
        """Another process shows a status line on this terminal: write over it, not behind it."""
        if self.stderr.is_terminal:
            raw = io.FileIO(sys.stderr.fileno(), "w", closefd=False)
            self.stderr.file = _OverLine(io.BufferedWriter(raw), sys.stderr.encoding, write_through=True)

    def note(self, text: str) -> None:
        """A line about what is going on."""
        if not self.quiet:
            self.stderr.print(Text(printable(text)))

    def warn(self, text: str) -> None:
        """A line that should be noticed."""
        self.stderr.print(Text.assemble(("warning: ", "yellow"), printable(text)))

    def error(self, text: str) -> None:
        """The one line of a failure."""
        self.stderr.print(Text.assemble(("error: ", "bold red"), printable(" ".join(text.split("\n")))))

    def line(self, text: str) -> None:
        """A line of data, as it is."""
        sys.stdout.write(text + "\n")

    def json(self, value: object) -> None:
        """A line of JSON data."""
        self.line(json_bytes(value).decode())

    def rows(self, columns: Mapping[str, str], rows: Iterable[Mapping[str, object]], spare: Sequence[str] = ()) -> None:
        """A table: keys of the rows and their headings. Numbers are aligned to the right.

        On a terminal too narrow for all of it, columns of `spare` are left out, the first ones first.
        """
        found = list(rows)
        console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
        unbounded = console.options.update(width=PIPE_WIDTH)
        left = dict(columns)
        for key in spare:
            if Measurement.get(console, unbounded, _table(left, found)).maximum <= console.width:
                break
            left.pop(key)
        console.print(_table(left, found))

    def data(self, columns: Mapping[str, str], rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
        """Rows as one JSON array, or as a table."""
        if as_json:
            self.json(list(rows))
        else:
            self.rows(columns, rows)


def _table(columns: Mapping[str, str], rows: Sequence[Mapping[str, object]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for key, heading in columns.items():
        numbers = any(isinstance(row.get(key), int | float) for row in rows)
        table.add_column(Text(heading), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row.get(key))) for key in columns))
    return table
