"""A flight as the demo's processors read it; a test says only what it is about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

NOON = datetime(2013, 1, 5, 12, tzinfo=UTC)


def flight(**fields: Any) -> dict[str, Any]:
    """A flight from JFK to Boston at noon, on time."""
    usual = {
        "year": 2013, "month": 1, "day": 5, "dep_time": 700, "sched_dep_time": 700, "dep_delay": 0,
        "carrier": "B6", "flight": 18, "tailnum": "N1", "origin": "JFK", "dest": "BOS", "distance": 187, "hour": 7,
        "sched_arr_time": 800, "minute": 0, "time_hour": NOON,
    }  # fmt: skip
    return usual | fields


def cancelled(**fields: Any) -> dict[str, Any]:
    """One that never left."""
    return flight(dep_time=None, dep_delay=None, **fields)
