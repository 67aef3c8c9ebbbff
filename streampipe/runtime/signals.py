"""A worker in a process of its own: signals stop it, and a watch over how long that takes."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Protocol

log = logging.getLogger(__name__)

STOP_WITHIN_S = 29.0
"""After the first signal: drain, commit, leave. Orchestrators kill after 30 s."""
ABANDON_WITHIN_S = 4.0
"""After the second signal."""
INTERRUPTED = 130
"""Exit code after a second signal, or when stopping took too long."""


class Stoppable(Protocol):
    """A worker."""

    def run(self) -> None:
        """Work."""

    def stop(self) -> None:
        """Stop soon, from any thread."""

    def abandon(self) -> None:
        """Stop now, from any thread."""


def run_until_signalled(worker: Stoppable) -> int:
    """Run in the main thread; the first SIGTERM or SIGINT drains, the second one abandons what is uncommitted.

    Returns the exit code: 0, or 130 after a second signal. Raises what `worker.run` raises. A worker that hangs,
    in a client library for instance, is ended by `os._exit`.
    """
    with _watch(worker) as watch:
        worker.run()
    return INTERRUPTED if watch.signals > 1 else 0


@contextlib.contextmanager
def _watch(worker: Stoppable) -> Iterator[_Watch]:
    # Python runs signal handlers between bytecodes of the main thread, which may sit in a C call for long.
    # The wake-up descriptor is written by the C handler itself, so that another thread learns of it at once.
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    descriptor = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    watch = _Watch(worker, ours)
    watch.start()
    try:
        yield watch
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
        theirs.close()
        watch.join()
        ours.close()


class _Watch(threading.Thread):
    def __init__(self, worker: Stoppable, signals: socket.socket) -> None:
        super().__init__(name="streampipe-signals", daemon=True)
        self._worker, self._socket = worker, signals
        self.signals = 0

    def run(self) -> None:
        """Count signals until the worker is done (end of file) or out of time."""
        try:
            while self._socket.recv(1):
                self.signals += 1
                if self.signals == 1:
                    log.info("stopping: what is processed gets committed; a second signal abandons it")
                    self._worker.stop()
                    self._socket.settimeout(STOP_WITHIN_S)
                else:
                    self._worker.abandon()
                    self._socket.settimeout(ABANDON_WITHIN_S)
        except TimeoutError:
            log.error("the worker did not stop in time; what it had not committed is taken back by the broker")
            os._exit(INTERRUPTED)
