"""What every contestant is given: names, addresses, schema ids and the same client tuning."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

PARTITIONS = 4
_VARIABLE = "BENCH_SETUP"

# fetch.queue.backoff.ms: librdkafka's default of 1000 stops a partition for a second whenever its queue is full.
CONSUMER: Mapping[str, str | int | bool] = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "fetch.queue.backoff.ms": 1,
    "fetch.wait.max.ms": 20,
    "queued.max.messages.kbytes": 131_072,
    "queued.min.messages": 20_000,
}
PRODUCER: Mapping[str, str | int | bool] = {
    "batch.num.messages": 10_000,
    "batch.size": 1_000_000,
    "delivery.report.only.error": True,
    "enable.idempotence": True,
    "linger.ms": 20,
    "queue.buffering.max.kbytes": 1_048_576,
    "queue.buffering.max.messages": 1_000_000,
}


@dataclass(frozen=True, slots=True)
class Setup:
    """One run of one contestant: where it reads, where it writes, and who it is."""

    bootstrap: str
    registry: str
    flights: str
    """Input topic."""
    airlines: str
    """Topic of the table."""
    output: str
    changelog: str
    """Compacted topic for the state of the loops; streampipe makes its own."""
    group: str
    flight_schema: int
    output_schema: int

    def environment(self) -> dict[str, str]:
        """Variables from which `setup_of_this_process` reads this again."""
        return {_VARIABLE: json.dumps(asdict(self))}


def setup_of_this_process() -> Setup:
    """The setup that the benchmark gave to this process. Raises RuntimeError outside of a benchmark."""
    text = os.environ.get(_VARIABLE)
    if text is None:
        raise RuntimeError("this program is a contestant: start it with python -m benchmarks")
    return Setup(**json.loads(text))
