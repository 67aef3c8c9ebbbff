"""A worker of the fake task in a process of its own: python -m tests.runtime.process BROKER APP SLOT OPTIONS-JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streampipe.brokers.opening import open_broker
from streampipe.records import RecordBatch
from streampipe.runtime.signals import run_until_signalled
from streampipe.runtime.worker import Worker
from tests.runtime.fakes import CountingTask, Log, Names, settings


class Slow(CountingTask):
    """Takes its time, and can be made to hang."""

    def __init__(self, names: Names, log: Log, options: dict[str, Any]) -> None:
        super().__init__(names, log)
        self._options = options

    def process(self, batches: Sequence[RecordBatch], now_ms: int | None = None) -> None:
        super().process(batches, now_ms)
        Path(self._options["progress"]).write_text(str(len(self.log.processed)))
        if self._options.get("hang"):
            time.sleep(600)
        time.sleep(self._options.get("pause_s", 0.0))


def main() -> int:
    address, app, slot, raw = sys.argv[1:]
    options = json.loads(raw)
    names, log = Names(app, repartitioned=options.get("repartitioned", False)), Log()
    worker = Worker(
        lambda: Slow(names, log, options),
        open_broker(address, options.get("kafka")),
        settings(**options.get("settings", {})),
        app_id=app,
        slot=int(slot),
        until_caught_up=options.get("until_caught_up", False),
    )
    try:
        return run_until_signalled(worker)
    finally:
        Path(options["progress"] + ".done").write_text(str(len(log.processed)))


if __name__ == "__main__":
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    sys.exit(main())
