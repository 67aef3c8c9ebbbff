"""Records that wait for a partner as changelog records, and back.

Key: the side (1 byte) and the record's number (8). Value: sealed time in ms (8), whether it had a partner (1), length
of the key (4), the key, and the record in Avro. Big-endian. The empty key has the stream time.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pyarrow as pa

from streampipe.errors import StateCorrupted
from streampipe.operators.joins.join_buffer import BODY, KEY, Entries
from streampipe.schemas.codec import AvroDecoder, AvroEncoder
from streampipe.schemas.naming import avro_schema_for
from streampipe.schemas.port import Encoded, Registry
from streampipe.state.codec import Sealer

_KEY = struct.Struct(">BQ")
_HEAD = struct.Struct(">q?I")
_TIME = struct.Struct(">q")
STREAM_TIME = b""


class _Own:
    """All of a registry that a decoder asks for, with one schema that nobody else needs to know."""

    def __init__(self, text: str) -> None:
        self._text = text

    def by_id(self, schema_id: int) -> str:  # noqa: ARG002 - there is one only
        return self._text


class JoinStateCodec:
    """The entries of both sides, each of its own columns."""

    def __init__(self, name: str, sides: Sequence[pa.Schema]) -> None:
        texts = [avro_schema_for(f"{name}_{side}", schema) for side, schema in enumerate(sides)]
        self._name, self._schemas = name, sides
        self._encoders = [AvroEncoder(text, 0) for text in texts]
        self._decoders = [AvroDecoder(cast(Registry, _Own(text)), text) for text in texts]
        self._sealer = Sealer(name, "|".join(texts))

    def bodies(self, side: int, rows: pa.RecordBatch) -> Encoded:
        """Records as bytes; those that have no Avro form are failures."""
        return self._encoders[side].encode(rows)

    def encode(self, side: int, entries: Entries) -> tuple[list[bytes], list[bytes]]:
        """State keys and values."""
        meta = entries.meta
        heads = zip(meta["time"].tolist(), meta["matched"].tolist(), strict=True)
        named = zip(heads, entries.rows.column(KEY).to_pylist(), entries.rows.column(BODY).to_pylist(), strict=True)
        payloads = [_HEAD.pack(time, matched, len(key)) + key + body for (time, matched), key, body in named]
        return self.keys(side, entries), self._sealer.seal(payloads)

    @staticmethod
    def keys(side: int, entries: Entries) -> list[bytes]:
        """State keys."""
        return [_KEY.pack(side, number) for number in entries.meta["seq"].tolist()]

    def decode(self, side: int, partition: int, stored: Mapping[bytes, bytes]) -> Entries | None:
        """The entries of a side among a partition's state; None without any. Raises StateCorrupted."""
        mine = {key: value for key, value in stored.items() if key != STREAM_TIME and key[0] == side}
        if not mine:
            return None
        payloads = self._sealer.unseal(list(mine.values()))
        try:
            numbers = [_KEY.unpack(key)[1] for key in mine]
            heads = [_HEAD.unpack_from(payload) for payload in payloads]
        except struct.error:
            raise StateCorrupted(f"state {self._name!r}: an entry is not one that this version writes") from None
        keys = [p[_HEAD.size : _HEAD.size + length] for p, (_, _, length) in zip(payloads, heads, strict=True)]
        bodies = [p[_HEAD.size + length :] for p, (_, _, length) in zip(payloads, heads, strict=True)]
        decoded = self._decoders[side].decode(bodies)
        if decoded.failures:
            raise StateCorrupted(f"state {self._name!r}: {decoded.failures[0].message}")
        rows = with_state(decoded.columns, self._schemas[side], keys, bodies)
        times = np.array([time for time, _, _ in heads], np.int64)
        entries = Entries.of(rows, np.full(len(keys), partition, np.int64), times, np.array(numbers, np.int64))
        entries.meta["matched"] = [matched for _, matched, _ in heads]
        entries.meta["stored"] = True
        return entries

    def encode_time(self, stream_time: int) -> bytes:
        """A stream time in ms, sealed."""
        return self._sealer.seal([_TIME.pack(stream_time)])[0]

    def decode_time(self, value: bytes) -> int:
        """A stream time in ms. Raises StateCorrupted."""
        return int(_TIME.unpack(self._sealer.unseal([value])[0])[0])


def with_state(
    columns: pa.RecordBatch, schema: pa.Schema, keys: Sequence[bytes | None], bodies: Sequence[bytes]
) -> pa.RecordBatch:
    """Columns of entries: those of the records, then KEY and BODY.

    Avro knows fewer types than columns have: an hour that an expression made is 8 bits wide, and comes back with 32.
    """
    own = [array if array.type == kind else array.cast(kind) for array, kind in zip(columns, schema.types, strict=True)]
    more = [pa.array(keys, pa.binary()), pa.array(bodies, pa.binary())]
    return pa.RecordBatch.from_arrays([*own, *more], names=[*schema.names, KEY, BODY])
