"""Worker processes of one processor: started, killed, started again, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from streampipe.errors import Unavailable
from tests.chaos import failpoints

ROOT = Path(__file__).resolve().parents[2]
MODULE = str(Path(__file__).with_name("processor.py").relative_to(ROOT))
STACKS_AFTER_S = 15.0
"""A worker that is stopping for so long is asked to write into its log where it is."""


class Workers:
    """Two or more slots, each with a process. Not for several threads: a process dies with the thread it is of."""

    def __init__(self, slots: int, folder: Path, environment: Mapping[str, str], *flags: str) -> None:
        self._folder, self._flags = folder, flags
        self._environment = {**os.environ, "POLARS_MAX_THREADS": "1", "STREAMPIPE_HTTP_PORT": "none", **environment}
        self._starts = 0
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.unexpected: list[str] = []
        """Workers that ended though nobody told them to."""
        self._slots = slots

    def start(self, slot: int, failpoint: str = "") -> None:
        """Start the slot's process, to die at a failpoint if one is given."""
        arguments = [*self._flags, "--slot", str(slot), "--report", str(self._folder)]
        strikes = {failpoints.VARIABLE: failpoint, failpoints.FREEZE: str(self._freeze(slot))}
        self._processes[slot] = self._spawn(f"slot{slot}", *arguments, **strikes)

    def revive(self) -> None:
        """Start those again that found no broker when they started, as whoever supervises them would."""
        for slot, process in list(self._processes.items()):
            if process.poll() == Unavailable.exit_code:
                self.start(slot)

    def died(self, slot: int) -> bool:
        """Whether the slot's process was killed by what it passed."""
        return self._processes[slot].poll() == -signal.SIGKILL

    def signal(self, slot: int, number: signal.Signals) -> None:
        """Send a signal to the slot's process."""
        self._look(slot, self._processes[slot])
        self._processes[slot].send_signal(number)

    def freeze(self, slot: int, within_s: float) -> None:
        """SIGSTOP, when it is about to send offsets if it gets to that in time. It may need more than one SIGCONT."""
        asked, deadline = self._freeze(slot), time.monotonic() + within_s
        asked.touch()
        while asked.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        asked.unlink(missing_ok=True)
        self.signal(slot, signal.SIGSTOP)

    def _freeze(self, slot: int) -> Path:
        return self._folder / f"freeze-{slot}"

    def stop(self, slot: int, timeout_s: float) -> None:
        """SIGTERM, and wait for the end."""
        process = self._processes.pop(slot)
        self._look(slot, process)
        process.terminate()
        self._await_end(slot, process, timeout_s)

    def start_all(self) -> None:
        for slot in range(self._slots):
            self.start(slot)

    def kill(self, slot: int) -> None:
        """kill -9."""
        process = self._processes[slot]
        self._look(slot, process)
        process.kill()
        process.wait()

    def stop_all(self, timeout_s: float) -> None:
        """SIGTERM to all of them, and wait for the ends."""
        for slot, process in self._processes.items():
            self._look(slot, process)
            process.terminate()
        for slot, process in self._processes.items():
            self._await_end(slot, process, timeout_s)
        self._processes = {}

    def catch_up(self, timeout_s: float, *flags: str) -> None:
        """Run all slots until they caught up; as a user would, under the supervisor."""
        flags = (*self._flags, "--until-caught-up", "--workers", str(self._slots), *flags)
        self._processes = {0: self._spawn("finish", *flags)}
        code = self._processes[0].wait(timeout_s)
        if code:
            self.unexpected.append(f"the last run ended with exit code {code}")

    def close_windows(self, timeout_s: float) -> None:
        """The same, and close all windows at the end."""
        self.catch_up(timeout_s, "--close-windows")

    def close(self) -> None:
        """Leave none behind."""
        for process in self._processes.values():
            process.kill()
            process.wait()

    def logs(self, lines: int = 15) -> str:
        """The last lines that each process said; those that live say where they are."""
        for process in self._processes.values():
            process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        every = sorted(self._folder.glob("*.log"))
        return "\n".join(f"-- {log.name}\n" + "\n".join(log.read_text().splitlines()[-lines:]) for log in every)

    def _await_end(self, slot: int, process: subprocess.Popen[bytes], timeout_s: float) -> None:
        try:
            code = process.wait(STACKS_AFTER_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)
            code = process.wait(timeout_s)
        if code not in (0, -signal.SIGTERM):  # the latter: it had not started yet
            self.unexpected.append(f"slot {slot} answered SIGTERM with exit code {code}")

    def _look(self, slot: int, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is not None:
            self.unexpected.append(f"slot {slot} ended by itself with exit code {process.returncode}")

    def _spawn(self, label: str, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        self._starts += 1
        command = [sys.executable, "-m", "tests.chaos.worker", str(os.getpid()), "run", MODULE, *arguments]
        with (self._folder / f"{self._starts:04}-{label}.log").open("wb") as log:
            return subprocess.Popen(command, cwd=ROOT, env=self._environment | more, stdout=log, stderr=log)


def await_true(condition: Callable[[], bool], what: str, workers: Workers, within_s: float = 60.0) -> None:
    """Wait for a condition; fails with the workers' last words."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {within_s:.0f} s\n{workers.logs()}"
        time.sleep(0.05)
