"""Records that must end as dead letters, and of which class: what the demo feeds in to see them isolated."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

PROCESSORS = ("flights-enriched", "delays-hourly", "delay-alerts")


@dataclass(frozen=True, slots=True)
class Broken:
    """Bytes that are no flight, and the failure class that they deserve."""

    what: str
    value: bytes
    failure_class: str


def broken_bytes(good: bytes) -> list[Broken]:
    """Bytes made of `good`, a framed flight whose origin is EWR, each spoilt in one way."""
    header, body = good[:5], good[5:]
    invalid_utf8 = body.replace(b"\x06EWR", b"\x06\xff\xfe\xfd", 1)
    if invalid_utf8 == body:
        raise ValueError("the given record is no framed flight from EWR")
    return [
        Broken("not Avro at all", b"departed late, sorry", "deserialization"),
        Broken("an empty value", b"", "deserialization"),
        Broken("a wrong magic byte", b"\x01" + good[1:], "deserialization"),
        Broken("an unknown schema id", b"\x00\x7f\xff\xff\xfe" + body, "schema"),
        Broken("a truncated body", good[:-9], "deserialization"),
        Broken("a right header before garbage", header + b"\xff" * 24, "deserialization"),
        Broken("text that is not UTF-8", header + invalid_utf8, "deserialization"),
    ]


def rule_breakers(flight: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By the rule they break: flights that the schema allows and nobody believes, made of a good one."""
    return {
        "plausible_delay": flight | {"dep_delay": 9_999},
        "positive_distance": flight | {"distance": 0},
        "goes_somewhere": flight | {"dest": flight["origin"]},
    }


def expected_dead_letters() -> dict[str, Counter[str]]:
    """Dead letters by processor and class; the late record is late for windows only."""
    example = b"\x00\x00\x00\x00\x01" + b"\x06EWR" + bytes(9)
    injected = Counter(b.failure_class for b in broken_bytes(example))
    injected["validation"] = len(rule_breakers({"origin": ""}))
    late = Counter({"late": 1})
    return {name: injected + late if name == "delays-hourly" else injected.copy() for name in PROCESSORS}
