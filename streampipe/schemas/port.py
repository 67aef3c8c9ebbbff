"""The Registry seam and what codecs hand over.

Implementations of `Registry`: `local` (a SQLite file) and `confluent` (any registry with the Confluent API).
Schemas are Avro schemas as JSON text; their references are resolved by the implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from streampipe.records import IntArray


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema under a subject: `id` is global, `version` counts within the subject from 1."""

    subject: str
    version: int
    id: int
    text: str


class Registry(Protocol):
    """Schemas by id and by subject. Every method may raise Unavailable; answers by id are cached for ever."""

    name: str

    def by_id(self, schema_id: int) -> str:
        """Schema text of an id. Raises UnknownSchema (remembered for 30 s, so that poison ids stay cheap)."""

    def latest(self, subject: str) -> RegisteredSchema:
        """Newest version of a subject. Raises UnknownSubject."""

    def version(self, subject: str, version: int) -> RegisteredSchema:
        """One version of a subject. Raises UnknownSubject."""

    def register(self, subject: str, text: str) -> int:
        """Register (again is fine: same id) and return the id. Raises IncompatibleSchema, ConfigError (no schema)."""

    def incompatibilities(self, subject: str, text: str) -> list[str]:
        """Why the registry would refuse this schema; empty when it would take it or the subject is new."""

    def subjects(self) -> list[str]:
        """All subjects, sorted."""

    def close(self) -> None:
        """Release everything."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one row of a batch failed. `failure_class` is one of `policies.FAILURE_CLASSES`; no payload in `message`."""

    row: int
    failure_class: str
    exception: str
    message: str
    schema_id: int | None = None


@dataclass(slots=True)
class Decoded:
    """Values of a batch as columns of the reader schema.

    `columns` holds the rows that decoded, in order; `rows[i]` is the index of its i-th row in the values given
    (None: all of them, in order). `tombstones` are the indexes of None values, `failures` of the bad ones; each
    index of the input is in exactly one of the three.
    """

    columns: pa.RecordBatch
    rows: IntArray | None = None
    tombstones: IntArray | None = None
    failures: list[Failure] = field(default_factory=list)


@dataclass(slots=True)
class Encoded:
    """Framed values of the rows that could be encoded, in order; `rows` and `failures` as in `Decoded`."""

    values: list[bytes]
    rows: IntArray | None = None
    failures: list[Failure] = field(default_factory=list)


class Decoder(Protocol):
    """Framed Avro values to columns of one reader schema; caches per writer schema id."""

    reader: str
    arrow: pa.Schema

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Decode a batch that may mix schema ids. Raises Unavailable, with nothing decoded, when the registry is."""


class Encoder(Protocol):
    """Columns to framed Avro values of one registered schema."""

    schema_id: int
    text: str
    arrow: pa.Schema

    def encode(self, columns: pa.RecordBatch) -> Encoded:
        """Encode the columns that the schema names, found by name and cast to `arrow`; others are ignored.

        A column that is missing takes the field's default; without one it raises TopologyError.
        """
