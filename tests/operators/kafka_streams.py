"""The cases in data/kafka_streams_answers.jsonl.gz: what Kafka Streams itself answered. See data/README.md."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import Any

import orjson

_FILE = Path(__file__).with_name("data") / "kafka_streams_answers.jsonl.gz"


@cache
def _all() -> list[dict[str, Any]]:
    with gzip.open(_FILE, "rb") as lines:
        return [orjson.loads(line) for line in lines]


def cases(op: str) -> list[dict[str, Any]]:
    """Every case of an operator."""
    return [case for case in _all() if case["op"] == op]
