"""Files of JSON lines or CSV as columns of a schema, a chunk at a time, each row with its line number."""

from __future__ import annotations

import csv
import gzip
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import orjson
import pyarrow as pa

from streampipe.cli.columns import from_json, from_text
from streampipe.cli.session import readable
from streampipe.errors import ConfigError, StreampipeError
from streampipe.schemas.model import Type

CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of the file that is no record of the schema."""

    line: int
    reason: str


@dataclass(slots=True)
class Chunk:
    """Rows that fit, as columns; `lines[i]` is the line of row i."""

    columns: pa.RecordBatch
    lines: list[int]
    bad: list[BadLine] = field(default_factory=list)


@dataclass(slots=True)
class InputFile:
    """An open file: its text, and how far its bytes on disk are read (None for standard input)."""

    name: str
    is_csv: bool
    text: IO[str]
    raw: IO[bytes] | None
    size: int | None

    @property
    def done(self) -> int:
        """Bytes read so far."""
        return self.raw.tell() if self.raw is not None else 0


@contextmanager
def open_input(path: str) -> Iterator[InputFile]:
    """Open FILE.jsonl, FILE.csv, either with .gz, or `-` for JSON lines on standard input. Raises ConfigError."""
    if path == "-":
        yield InputFile("-", False, sys.stdin, None, None)
        return
    file = readable(path)
    suffixes = [s.lower() for s in file.suffixes]
    packed = suffixes[-1:] == [".gz"]
    kind = (suffixes[:-1] if packed else suffixes)[-1:]
    if kind not in ([".jsonl"], [".ndjson"], [".json"], [".csv"]):
        raise ConfigError(f"{path}: files are .jsonl or .csv, perhaps with .gz")
    with file.open("rb") as raw:
        text = io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if packed else raw, "utf-8-sig", newline="")
        try:
            yield InputFile(Path(path).name, kind == [".csv"], text, raw, file.stat().st_size)
        except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, csv.Error) as error:
            raise StreampipeError(f"{path}: cannot be read: {error}") from error


class Rows:
    """Chunks of a file as columns of `schema` (whose tree is `node`: it knows the defaults).

    `na`: cells of a CSV file that mean null, where the field may be null. `ignored` collects the names in the file
    that the schema does not have.
    """

    def __init__(self, source: InputFile, node: Type, schema: pa.Schema, na: Sequence[str] = ("", "NA")) -> None:
        self._source, self._schema, self._na = source, schema, frozenset(na)
        self._defaults = {f.name: f.default for f in node.fields if f.has_default}
        self.ignored: set[str] = set()

    def __iter__(self) -> Iterator[Chunk]:
        return self._csv() if self._source.is_csv else self._json()

    def _json(self) -> Iterator[Chunk]:
        numbered = enumerate(self._source.text, 1)
        names = set(self._schema.names)
        while block := list(islice(numbered, CHUNK)):
            rows: list[dict[str, Any]] = []
            lines: list[int] = []
            bad: list[BadLine] = []
            for line, text in block:
                if not text.strip():
                    continue
                try:
                    event = orjson.loads(text)
                except orjson.JSONDecodeError as error:
                    bad.append(BadLine(line, f"no JSON: {error.msg}, column {error.colno}"))
                    continue
                if not isinstance(event, dict):
                    bad.append(BadLine(line, f"a JSON object is needed, not {type(event).__name__}"))
                    continue
                self.ignored |= event.keys() - names
                missing = [n for n in self._schema.names if n not in event and not self._may_miss(n)]
                if missing:
                    bad.append(BadLine(line, f"field {missing[0]!r} is missing"))
                    continue
                rows.append(event)
                lines.append(line)
            columns = {
                f.name: from_json(f, [row.get(f.name, self._defaults.get(f.name)) for row in rows])
                for f in self._schema
            }
            yield self._chunk(columns, lines, bad)

    def _csv(self) -> Iterator[Chunk]:
        reader = csv.reader(self._source.text, strict=True)
        header = next(reader, None)
        if header is None:
            raise StreampipeError(f"{self._source.name}: is empty; the first line of a CSV file names its columns")
        self.ignored |= set(header) - set(self._schema.names)
        missing = [n for n in self._schema.names if n not in header and not self._may_miss(n)]
        if missing:
            raise StreampipeError(f"{self._source.name}:1: column {missing[0]!r} of the schema is missing")
        numbered = ((reader.line_num, row) for row in reader)
        while block := list(islice(numbered, CHUNK)):
            full = [(line, row) for line, row in block if len(row) == len(header)]
            bad = [
                BadLine(line, f"{len(row)} cells, the header has {len(header)}")
                for line, row in block
                if row and len(row) != len(header)
            ]
            cells = dict(zip(header, zip(*(row for _, row in full), strict=True), strict=False))
            columns = {
                f.name: from_text(f, self._nulled(f, cells.get(f.name, ()))) for f in self._schema if f.name in header
            }
            yield self._chunk(columns, [line for line, _ in full], bad)

    def _nulled(self, column: pa.Field, cells: Sequence[str]) -> Sequence[str | None]:
        na = self._na
        return [None if cell in na else cell for cell in cells] if column.nullable else cells

    def _may_miss(self, name: str) -> bool:
        return name in self._defaults or self._schema.field(name).nullable

    def _chunk(self, columns: dict[str, tuple[pa.Array, list[int]]], lines: list[int], bad: list[BadLine]) -> Chunk:
        """The rows of which every value fits, and the bad lines in order."""
        reasons: dict[int, str] = {}
        for name, (_, rows) in columns.items():
            for row in rows:
                reasons.setdefault(row, f"field {name!r} is no {self._schema.field(name).type}")
        batch = pa.RecordBatch.from_arrays([array for array, _ in columns.values()], names=list(columns))
        if reasons:
            good = [row for row in range(len(lines)) if row not in reasons]
            bad = [*bad, *(BadLine(lines[row], reason) for row, reason in reasons.items())]
            batch, lines = batch.take(pa.array(good, pa.int64())), [lines[row] for row in good]
        return Chunk(batch, lines, sorted(bad, key=lambda one: one.line))
