"""What framing, checks and evolution cost beside the bare columnar codec: python -m benchmarks.codec.

63-byte records of 18 nullable fields. Both sides take turns in one process and the best round of each counts, since a
busy machine slows both: read the ratio, not the microseconds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyruhvro

from streampipe.schemas.avro import RowCodec, parse
from streampipe.schemas.codec import AvroDecoder, AvroEncoder
from streampipe.schemas.framing import header
from streampipe.schemas.registry.local import LocalRegistry
from streampipe.schemas.types import physical_type

RECORDS = 10_000
ROUNDS = 60
_TEXTS = (9, 11, 12, 13)
_FIELDS = [{"name": f"f{i}", "type": ["null", "string" if i in _TEXTS else "int"], "default": None} for i in range(18)]
SCHEMA = orjson.dumps({"type": "record", "name": "Flight", "fields": _FIELDS}).decode()


def main() -> None:
    """Measure decoding and encoding, and print a line for each."""
    bodies = _bodies()
    with TemporaryDirectory(prefix="bench-") as folder:
        registry = LocalRegistry(str(Path(folder) / "registry.db"))
        schema_id = registry.register("flights-value", SCHEMA)
        head = header(schema_id)
        values: list[bytes | None] = [head + body for body in bodies]
        decoder, encoder = AvroDecoder(registry, SCHEMA), AvroEncoder(SCHEMA, schema_id)
        columns = decoder.decode(values).columns

        def bare_encode() -> list[bytes]:
            made = pyruhvro.serialize_record_batch(columns, SCHEMA, 1)[0]
            ends = pa.scalar(head, made.type), pa.scalar(b"", made.type)
            framed: list[bytes] = pc.binary_join_element_wise(ends[0], made, ends[1]).to_pylist()
            return framed

        assert bare_encode() == encoder.encode(columns).values == values
        _compare("decode", lambda: pyruhvro.deserialize_array(bodies, SCHEMA), lambda: decoder.decode(values))
        _compare("encode", bare_encode, lambda: encoder.encode(columns))
        registry.close()


def _bodies() -> list[bytes]:
    chance, node = random.Random(1), parse(SCHEMA)
    words = ["UA", "N14228", "EWR", None]
    rows = [
        {f"f{i}": chance.choice(words) if i in _TEXTS else chance.randint(0, 5_000) for i in range(18)}
        for _ in range(RECORDS)
    ]
    return RowCodec(node).write(pa.array(rows, physical_type(node)))


def _compare(what: str, bare: Callable[[], object], ours: Callable[[], object]) -> None:
    best = [float("inf"), float("inf")]
    for _ in range(ROUNDS):
        for i, work in enumerate((bare, ours)):
            started = time.process_time()
            work()
            best[i] = min(best[i], time.process_time() - started)
    bare_us, ours_us = (seconds / RECORDS * 1e6 for seconds in best)
    print(f"{what}: {ours_us:.2f} us a record, the bare codec {bare_us:.2f}; ratio {ours_us / bare_us:.2f}")


if __name__ == "__main__":
    main()
