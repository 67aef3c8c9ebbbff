"""Values as people read them: each decoded by the schema it was written with, or a reason why it cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import orjson

from streampipe.errors import ConfigError, UnknownSchema
from streampipe.schemas.codec import AvroDecoder
from streampipe.schemas.framing import Group, unframe
from streampipe.schemas.port import Registry


@dataclass(frozen=True, slots=True)
class Value:
    """An event, or the reason (`problem`) why there is none; a tombstone has neither."""

    event: dict[str, Any] | None = None
    problem: str | None = None
    schema_id: int | None = None


class ValueReader:
    """Decodes values of any mix of schemas; keeps a decoder for each schema id it met."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._decoders: dict[int, AvroDecoder] = {}

    def read(self, values: Sequence[bytes | None]) -> list[Value]:
        """One `Value` for each. Raises Unavailable when the registry is."""
        found = [Value()] * len(values)
        frames = unframe(values)
        for failure in frames.failures:
            found[failure.row] = Value(problem=f"{failure.exception}: {failure.message}")
        for group in frames.groups:
            rows = np.arange(len(values)).tolist() if group.rows is None else group.rows.tolist()
            for row, value in zip(rows, self._group(group, [values[row] for row in rows]), strict=True):
                found[row] = value
        return found

    def _group(self, group: Group, values: list[bytes | None]) -> list[Value]:
        schema_id = group.schema_id
        try:
            decoder = self._decoders.get(schema_id)
            if decoder is None:
                decoder = self._decoders[schema_id] = AvroDecoder(self._registry, self._registry.by_id(schema_id))
        except (UnknownSchema, ConfigError) as error:
            return [Value(problem=str(error), schema_id=schema_id)] * len(values)
        decoded = decoder.decode(values)
        found = [Value()] * len(values)
        rows = range(len(values)) if decoded.rows is None else decoded.rows.tolist()
        for row, event in zip(rows, decoded.columns.to_pylist(), strict=True):
            found[row] = Value(event, schema_id=schema_id)
        for failure in decoded.failures:
            found[failure.row] = Value(problem=f"{failure.exception}: {failure.message}", schema_id=schema_id)
        return found


def text_of(data: bytes | None) -> str | None:
    """Bytes as text where they are UTF-8, else as 0x and hexadecimal digits."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return f"0x{data.hex()}"


def json_bytes(value: object) -> bytes:
    """One line of JSON."""
    return orjson.dumps(value, default=_for_json, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


def _for_json(value: Any) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return text_of(bytes(value))
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
