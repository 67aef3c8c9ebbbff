"""What is fed: events of Zipf-distributed keys, some out of order, some late, some poisoned. A seed decides it all."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

import fastavro

from streampipe.records import Headers, partition_of
from tests.chaos.processor import BY_KEY, EVENT

FIRST_MS = 1_767_225_600_000  # 2026-01-01
STEP_MS = 10
KEYS = [f"key-{n}" for n in range(100)]
WEIGHTS = list(accumulate(1 / (n + 1) for n in range(len(KEYS))))
SHOPS = [f"shop-{n}" for n in range(7)]
POISONED, LATE, OUT_OF_ORDER = 0.005, 0.005, 0.05
FAULT = "fault"
"""Header naming what is wrong with a record on purpose."""
UNKNOWN_ID = 2_000_000_000


class Fed(NamedTuple):
    """A record to be produced."""

    key: bytes
    value: bytes
    timestamp: int
    headers: Headers


def frame(schema_id: int, body: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + body


@dataclass
class Traffic:
    """Iterates over `records` records whose values are framed with `schema_id`."""

    seed: int
    records: int
    partitions: int
    schema_id: int
    _stream_times: dict[int, int] = field(default_factory=dict)
    _seqs: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Fed]:
        chance, schema = random.Random(self.seed), fastavro.parse_schema(json.loads(EVENT))
        for n in range(self.records):
            key = chance.choices(KEYS, cum_weights=WEIGHTS)[0]
            fault, at = self._fault(chance, key, FIRST_MS + n * STEP_MS)
            event = {"k": key, "seq": -1, "at": at, "shop": chance.choice(SHOPS), "amount": chance.randrange(1000)}
            if fault in ("", "late"):
                event["seq"] = self._seqs[key]
                self._seqs[key] += 1
            elif fault == "rule":
                event["amount"] = -1
            body = io.BytesIO()
            fastavro.schemaless_writer(body, schema, event)
            headers = ((FAULT, fault.encode()),) if fault else ()
            yield Fed(key.encode(), self._value(fault, body.getvalue()), at, headers)

    def _fault(self, chance: random.Random, key: str, now: int) -> tuple[str, int]:
        """What is wrong with the next record, if anything, and its event time."""
        die, partition = chance.random(), partition_of(key.encode(), self.partitions)
        if die < POISONED:
            return chance.choice(["garbage", "magic", "schema", "rule"]), now
        seen = self._stream_times.get(partition)
        if die < POISONED + LATE and seen is not None:
            return "late", seen - BY_KEY.size_ms - BY_KEY.grace_ms - chance.randrange(60_000)
        if die < POISONED + LATE + OUT_OF_ORDER and seen is not None:
            return "", max(now, seen) - chance.randrange(BY_KEY.grace_ms)
        self._stream_times[partition] = now
        return "", now

    def _value(self, fault: str, body: bytes) -> bytes:
        good = frame(self.schema_id, body)
        bad = {"garbage": good[:5] + b"\xff" * 12, "magic": b"\x07" + good[1:], "schema": frame(UNKNOWN_ID, body)}
        return bad.get(fault, good)
