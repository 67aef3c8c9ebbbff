"""The ceiling: consume and forget."""

from __future__ import annotations

import time

from benchmarks.loops.clients import CHUNK, consuming
from benchmarks.setup import Setup, setup_of_this_process

_COMMIT_S = 0.1  # often, since commits are the only sign of progress


def consume(setup: Setup) -> None:
    """Consume until SIGTERM."""
    with consuming(setup) as consumer:
        last, seen = time.monotonic(), 0
        while True:
            seen += len(consumer.consume(CHUNK, 0.02))
            if seen and time.monotonic() - last > _COMMIT_S:
                consumer.commit(offsets=consumer.position(consumer.assignment()), asynchronous=True)
                last, seen = time.monotonic(), 0


if __name__ == "__main__":
    consume(setup_of_this_process())
