"""The events of all jobs as Avro schemas, and the function of job (d). Imported by contestants, so it is light."""

from __future__ import annotations

import json
import struct
from typing import Any

_STRINGS = {"carrier", "tailnum", "origin", "dest"}
FLIGHT_FIELDS = (
    "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay",
    "carrier", "flight", "tailnum", "origin", "dest", "air_time", "distance", "hour", "minute",
)  # fmt: skip


def _record(name: str, /, **fields: Any) -> str:
    return json.dumps({"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields.items()]})


_MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
FLIGHT = _record("Flight", **{n: ["null", "string" if n in _STRINGS else "int"] for n in FLIGHT_FIELDS})
AIRLINE = _record("Airline", carrier="string", name="string")
LATE = _record("Late", origin="string", dest="string", late="int")
NAMED = _record(
    "Named", origin="string", dest="string", carrier="string", flight="int", dep_delay=["null", "int"], name="string"
)
HOURLY = _record(
    "Hourly", origin="string", window_start=_MILLIS, window_end=_MILLIS, flights="long", total="long", worst="int"
)
ALERT = _record("Alert", origin="string", dest="string", late="int", severity="string")


def frame_of(schema_id: int) -> bytes:
    """What precedes a value of this schema: magic byte 0 and the id as four bytes (Confluent's wire format)."""
    return struct.pack(">bI", 0, schema_id)


def alert(flight: dict[str, Any]) -> dict[str, Any] | None:
    """How bad a departure is; None for a flight that never left. Job (d), in streampipe as in the hand-written loop."""
    late = flight["dep_delay"]
    if late is None:
        return None
    severity = "severe" if late > 60 else "late" if late > 15 else "on time"
    return {"origin": flight["origin"], "dest": flight["dest"], "late": late, "severity": severity}
