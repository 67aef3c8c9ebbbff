"""Runs one contestant and watches it from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import check, data
from benchmarks.contestants import SCHEMAS, Contestant
from benchmarks.kafka import Kafka
from benchmarks.processes import ProcessTree
from benchmarks.setup import Setup

ROOT = Path(__file__).resolve().parent.parent
_TICK_S = 0.05
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. Rates in records/s, CPU in seconds per million input records, None: nothing to measure."""

    job: str
    name: str
    round: int
    records: int
    """Input records; when `finished` is false, those done within the time allowed."""
    finished: bool
    rate: float | None
    """From the first progress seen to the last."""
    rate_from_launch: float | None
    cpu: float | None
    """From launch to the last progress, the process and all its children."""
    cpu_steady: float | None
    """Between the first progress and the last."""
    peak_mb: float
    processes: int
    first_progress_s: float | None
    wrong: tuple[str, ...]
    """What is not as it must be; empty: every output is right."""


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    done: float
    cpu_s: float


def measure(
    kafka: Kafka, contestant: Contestant, what: data.Input, round_: int, cap_s: float, progress: Callable[[float], None]
) -> Figures:
    """Run it on fresh topics until all is done or `cap_s` seconds are over, check its output, and clean up.

    `progress` is called with the records done. Input topics stay for the next contestant.
    """
    setup = kafka.setup(SCHEMAS[contestant.job], what)
    try:
        with _running(contestant, setup) as (process, errors):
            watch = _Watch(kafka, contestant, setup, what, ProcessTree(process.pid))
            ended = watch.until_done(process, cap_s, progress)
            wrong = [f"ended by itself with exit code {ended}: {_last_line(errors)}"] if ended is not None else []
        if not wrong and watch.finished and contestant.job != "bare":
            wrong = check.differences(kafka, setup, contestant.job, what)
        return watch.figures(round_, tuple(wrong))
    finally:
        kafka.clear(setup.group)


class _Watch:
    """Samples of one run."""

    def __init__(self, kafka: Kafka, contestant: Contestant, setup: Setup, what: data.Input, tree: ProcessTree) -> None:
        self._kafka, self._contestant, self._setup, self._tree = kafka, contestant, setup, tree
        self._records = what.records
        self._outputs = data.outputs(contestant.job, what) if contestant.progress == "output" else None
        self._launch = self._sample()
        self._first: _Sample | None = None
        self._last = self._launch
        self.finished = False

    def until_done(
        self, process: subprocess.Popen[bytes], cap_s: float, progress: Callable[[float], None]
    ) -> int | None:
        """Wait; the exit code if the contestant ended although nobody told it to."""
        while time.monotonic() - self._launch.at < cap_s:
            ended = process.poll()
            sample = self._sample()
            if sample.done > self._last.done:
                self._first, self._last = self._first or sample, sample
                progress(sample.done)
            if sample.done >= self._records and self._committed() >= self._records:
                self.finished = True
                return None
            if ended is not None:
                return ended
            time.sleep(_TICK_S)
        return None

    def figures(self, round_: int, wrong: tuple[str, ...]) -> Figures:
        """Everything about the run so far."""
        first, last, launch = self._first, self._last, self._launch
        steady = first is not None and last.done > first.done
        return Figures(
            job=self._contestant.job,
            name=self._contestant.name,
            round=round_,
            records=round(last.done),
            finished=self.finished,
            rate=(last.done - first.done) / (last.at - first.at) if first and steady else None,
            rate_from_launch=last.done / (last.at - launch.at) if last.done and last.at > launch.at else None,
            cpu=last.cpu_s / last.done * 1e6 if last.done else None,
            cpu_steady=(last.cpu_s - first.cpu_s) / (last.done - first.done) * 1e6 if first and steady else None,
            peak_mb=self._tree.peak_mb,
            processes=self._tree.size,
            first_progress_s=first.at - launch.at if first else None,
            wrong=wrong,
        )

    def _sample(self) -> _Sample:
        if self._outputs is None:
            done = float(self._committed())
        else:  # each transaction adds a marker to the partitions it touched, hence the minimum
            ends = sum(self._kafka.end_offsets(self._setup.output))
            done = min(ends, self._outputs) * self._records / self._outputs
        return _Sample(time.monotonic(), done, self._tree.cpu_s())

    def _committed(self) -> int:
        return self._kafka.committed(self._setup.group, self._setup.flights)


@contextmanager
def _running(contestant: Contestant, setup: Setup) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The contestant's process and the file its errors go to; it is ended by SIGTERM, with all its children."""
    with TemporaryDirectory(prefix="bench-") as folder:
        errors = Path(folder) / "stderr"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **contestant.environment(setup)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else every start compiles what no other run has compiled
        with errors.open("wb") as stderr:
            process = subprocess.Popen(
                contestant.command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
            )  # fmt: skip
        try:
            yield process, errors
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with suppress(ProcessLookupError):  # its session is its own: this hits nobody else
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_line(errors: Path) -> str:
    lines = errors.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
