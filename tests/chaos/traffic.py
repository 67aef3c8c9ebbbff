"""What is fed: events of Zipf-distributed keys, and a seed decides it all.

Some are out of order, late, poisoned, of times that cannot be, without a value, or there twice.
"""

from __future__ import annotations

import io
import json
import random
from collections import Counter, deque
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
SHARES = {"poisoned": 0.005, "tombstone": 0.001, "untimely": 0.001, "late": 0.005, "out of order": 0.05}
"""Of what is not simply as it should be."""
COPIES, COPIED = 0.002, 100
"""Share of records that are the same as one of the last so many."""
UNTIMELY = {"negative": -1, "ahead": 4_102_444_800_000}  # 2100-01-01
FAULT = "fault"
"""Header naming what is wrong with a record on purpose."""
UNKNOWN_ID = 2_000_000_000


class Fed(NamedTuple):
    """A record to be produced."""

    key: bytes
    value: bytes | None
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
    _recent: deque[Fed] = field(default_factory=lambda: deque(maxlen=COPIED))
    """Those in order: a copy so soon after is never late."""

    def __iter__(self) -> Iterator[Fed]:
        chance, schema = random.Random(self.seed), fastavro.parse_schema(json.loads(EVENT))
        for n in range(self.records):
            if self._recent and chance.random() < COPIES:
                yield chance.choice(self._recent)._replace(headers=((FAULT, b"copy"),))
                continue
            key, now = chance.choices(KEYS, cum_weights=WEIGHTS)[0], FIRST_MS + n * STEP_MS
            fault, at = self._fault(chance, key, now)
            event = {"k": key, "seq": -1, "at": at, "shop": chance.choice(SHOPS), "amount": chance.randrange(1000)}
            if fault in ("", "late"):
                event["seq"] = self._seqs[key]
                self._seqs[key] += 1
            elif fault == "rule":
                event["amount"] = -1
            body = io.BytesIO()
            fastavro.schemaless_writer(body, schema, event)
            headers = ((FAULT, fault.encode()),) if fault else ()
            fed = Fed(key.encode(), self._value(fault, body.getvalue()), now if fault in UNTIMELY else at, headers)
            if not fault and at == now:
                self._recent.append(fed)
            yield fed

    def _fault(self, chance: random.Random, key: str, now: int) -> tuple[str, int]:
        """What is wrong with the next record, if anything, and its event time."""
        [kind] = chance.choices([*SHARES, ""], [*SHARES.values(), 1 - sum(SHARES.values())])
        if kind == "poisoned":
            return chance.choice(["garbage", "magic", "schema", "rule"]), now
        if kind == "tombstone":
            return kind, now
        if kind == "untimely":
            return chance.choice(list(UNTIMELY.items()))
        partition = partition_of(key.encode(), self.partitions)
        seen = self._stream_times.get(partition)
        if kind == "late" and seen is not None:
            return kind, seen - BY_KEY.size_ms - BY_KEY.grace_ms - chance.randrange(60_000)
        if kind == "out of order" and seen is not None:
            return "", max(now, seen) - chance.randrange(BY_KEY.grace_ms)
        self._stream_times[partition] = now
        return "", now

    def _value(self, fault: str, body: bytes) -> bytes | None:
        if fault == "tombstone":
            return None
        good = frame(self.schema_id, body)
        bad = {"garbage": good[:5] + b"\xff" * 12, "magic": b"\x07" + good[1:], "schema": frame(UNKNOWN_ID, body)}
        return bad.get(fault, good)
