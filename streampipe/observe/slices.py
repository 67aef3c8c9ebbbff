"""Stretches of topics in a file: records byte for byte, with the schemas that their values were written with.

A line of JSON each: `{"schema": id, "text": "..."}` before the first record that needs it, then records. Keys, values
and headers that are text are kept as text, others as base64. Sorted so that times ascend across partitions while each
partition keeps its order.
"""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, cast

import orjson

from streampipe.errors import ConfigError, UnknownSchema
from streampipe.records import Record
from streampipe.schemas.framing import unframe

Bytes = str | dict[str, str] | None


@dataclass(frozen=True, slots=True)
class Slice:
    """Records in the order of the file, and schema texts by the ids in their values."""

    records: list[Record]
    schemas: dict[int, str] = field(default_factory=dict)


def in_time_order(records: Iterable[Record]) -> list[Record]:
    """Records of several partitions by time, each partition in its order."""
    latest: dict[tuple[str, int], int] = {}
    keyed = []
    for record in records:
        at = record.topic, record.partition
        latest[at] = max(record.timestamp, latest.get(at, record.timestamp))
        keyed.append((latest[at], record))
    return [record for _, record in sorted(keyed, key=lambda pair: pair[0])]


def write_slice(path: Path, records: Iterable[Record], schema_of: Callable[[int], str]) -> int:
    """Write a file, compressed where its name ends in .gz; returns the number of records.

    `schema_of` raises UnknownSchema for ids that nobody knows; their records are kept as they are.
    """
    count, known = 0, set[int]()
    with _open(path, "wb") as file:
        for record in in_time_order(records):
            for group in unframe([record.value]).groups:
                if group.schema_id not in known:
                    known.add(group.schema_id)
                    _write_schema(file, group.schema_id, schema_of)
            file.write(orjson.dumps(_line(record), option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def _write_schema(file: IO[bytes], schema_id: int, schema_of: Callable[[int], str]) -> None:
    try:
        text = schema_of(schema_id)
    except (UnknownSchema, ConfigError):
        return
    file.write(orjson.dumps({"schema": schema_id, "text": text}, option=orjson.OPT_APPEND_NEWLINE))


def read_slice(path: Path) -> Slice:
    """Read a file. Raises ConfigError naming the line that is none of a slice."""
    found = Slice([])
    try:
        with _open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    _read_line(orjson.loads(line), found)
                except (ValueError, KeyError, TypeError) as error:
                    raise ConfigError(f"{path}:{number} is no line of a slice of topics: {error}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return found


def _open(path: Path, mode: Literal["rb", "wb"]) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, mode)) if path.suffix == ".gz" else path.open(mode)


def _line(record: Record) -> dict[str, Any]:
    line: dict[str, Any] = {
        "topic": record.topic, "partition": record.partition, "offset": record.offset,
        "timestamp": record.timestamp, "key": _packed(record.key), "value": _packed(record.value),
    }  # fmt: skip
    if record.headers:
        line["headers"] = [[name, _packed(value)] for name, value in record.headers]
    return line


def _read_line(line: dict[str, Any], into: Slice) -> None:
    if "schema" in line:
        into.schemas[int(line["schema"])] = str(line["text"])
        return
    headers = tuple((str(name), _unpacked(value)) for name, value in line.get("headers", ()))
    place = str(line["topic"]), int(line["partition"]), int(line["offset"]), int(line["timestamp"])
    into.records.append(Record(*place, _unpacked(line["key"]), _unpacked(line["value"]), headers))


def _packed(data: bytes | None) -> Bytes:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _unpacked(data: Bytes) -> bytes | None:
    if isinstance(data, dict):
        return base64.b64decode(data["base64"], validate=True)
    return None if data is None else data.encode()
