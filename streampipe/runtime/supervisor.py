"""Several worker processes on one machine: started, watched and stopped as one."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

FINAL_EXIT_CODES = (2, 3, 4, 5, 7)
"""Exit codes that another try does not change (streampipe.errors): they stop all workers."""
MAX_RESTARTS, RESTART_PERIOD_S = 5, 600.0
"""A worker that ends otherwise is started again, so often in that many seconds; then all stop."""
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0
KILL_AFTER_S = 35.0
"""Seconds between asking workers to stop and killing them; a worker gives itself 30."""
_LOOK_EVERY_S = 0.1
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Child:
    slot: int
    process: subprocess.Popen[bytes] | None = None
    code: int | None = None
    start_at: float = 0.0
    restarts: deque[float] = field(default_factory=deque)


def run_workers(n: int, argv_for: Callable[[int], Sequence[str]]) -> int:
    """Run `n` worker processes, slot 0 to n-1, until all ended; returns the worst exit code.

    `argv_for(slot)` gives the arguments after the Python executable. SIGTERM and SIGINT are passed on; workers get
    them from here alone, since a terminal's Ctrl-C does not reach their process groups. A worker that dies of a
    signal or of an unexpected error is started again with backoff, five times in ten minutes; an exit code that
    trying again does not change stops all. Workers are asked to stop when this process dies.
    """
    return _Supervisor(n, argv_for).run()


class _Supervisor:
    def __init__(self, n: int, argv_for: Callable[[int], Sequence[str]]) -> None:
        self._argv_for = argv_for
        self._children = [_Child(slot) for slot in range(n)]
        self._signals = 0
        self._stop_asked_at: float | None = None

    def run(self) -> int:
        """Until every child ended."""
        main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGTERM, signal.SIGINT) if main else ()
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            while self._look():
                time.sleep(_LOOK_EVERY_S)
        finally:
            for child in self._running():
                child.kill()
                child.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
        return max((_severity(child.code), child.code or 0) for child in self._children)[1]

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._signals += 1
        self._stop()

    def _stop(self) -> None:
        """Ask all to stop. Each call is one more signal to a worker, and the second one is not gentle."""
        self._stop_asked_at = self._stop_asked_at or time.monotonic()
        for process in self._running():
            process.send_signal(signal.SIGTERM)

    def _running(self) -> list[subprocess.Popen[bytes]]:
        return [c.process for c in self._children if c.process is not None and c.process.poll() is None]

    def _look(self) -> bool:
        """Start what is due, note what ended; False when all is over."""
        now = time.monotonic()
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._ended(child, child.process.returncode, now)
            if child.process is None and child.code is None and now >= child.start_at:
                self._start(child)
        if self._stop_asked_at is not None and now - self._stop_asked_at > KILL_AFTER_S:
            for process in self._running():
                process.kill()
        return any(child.code is None for child in self._children)

    def _start(self, child: _Child) -> None:
        if self._stop_asked_at is not None:
            child.code = 0
            return
        environment = {"POLARS_MAX_THREADS": "1", **os.environ}  # the workers share the cores already
        command = [sys.executable, *self._argv_for(child.slot)]
        # In groups of their own: a terminal signals the whole group, and a second signal abandons work.
        child.process = subprocess.Popen(
            command, env=environment, process_group=0, preexec_fn=_die_with_parent(os.getpid())
        )

    def _ended(self, child: _Child, code: int, now: float) -> None:
        child.process = None
        stopping = self._stop_asked_at is not None
        if code == 0 or code in FINAL_EXIT_CODES or stopping or code == 130:
            child.code = 0 if stopping and code == -signal.SIGTERM else _positive(code)
            if code in FINAL_EXIT_CODES and not stopping:
                log.error("worker %d ended with exit code %d, which stops all workers", child.slot, code)
                self._stop()
            return
        while child.restarts and now - child.restarts[0] > RESTART_PERIOD_S:
            child.restarts.popleft()
        if len(child.restarts) >= MAX_RESTARTS:
            child.code = _positive(code)
            log.error("worker %d ended %d times in a row, which stops all workers", child.slot, MAX_RESTARTS + 1)
            self._stop()
            return
        backoff_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** len(child.restarts))
        child.restarts.append(now)
        child.start_at = now + backoff_s
        log.warning("worker %d ended with exit code %d; started again in %.1f s", child.slot, code, backoff_s)


def _positive(code: int) -> int:
    """The exit code as a shell tells it: 128 and the number of the signal that killed a process."""
    return code if code >= 0 else 128 - code


def _severity(code: int | None) -> int:
    """Final errors say most, then other failures, then an interrupt."""
    if not code:
        return 0
    return 3 if code in FINAL_EXIT_CODES else 1 if code == 130 else 2


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    """What a child calls first so that Linux sends it SIGTERM when its parent dies; nothing elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os._exit(0)

    return ask
