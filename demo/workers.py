"""The three processors as worker processes of their own, watched from outside."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from demo.broken import PROCESSORS
from demo.dataset import ROOT
from demo.place import COMMAND, CommandFailed, Place
from streampipe.brokers.port import Admin

TIMEOUT_S = 120.0
Progress = Callable[[str, int], None]
"""Told how many flights a processor has committed."""


@dataclass(slots=True)
class Finished:
    """What the workers said at their end, by processor, and how long all of them took together in seconds."""

    seconds: float
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)


def run(place: Place, folder: Path, progress: Progress) -> Finished:
    """Run all processors side by side until each has caught up. Raises CommandFailed when one of them fails.

    `folder` takes each worker's log. Progress is what the groups committed: it is seen by anybody, at any time.
    """
    started = time.monotonic()
    with closing(place.open().admin()) as admin, _workers(place, folder) as workers:
        while any(worker.poll() is None for worker in workers.values()):
            for name in PROCESSORS:
                progress(name, committed_flights(admin, name))
            if time.monotonic() - started > TIMEOUT_S:
                raise CommandFailed(f"the processors did not catch up within {TIMEOUT_S:.0f} s; see {folder}/*.log")
            time.sleep(0.1)
        seconds = time.monotonic() - started
        for name, worker in workers.items():
            if worker.returncode:
                raise CommandFailed(f"{name} ended with exit code {worker.returncode}: {last_line(folder, name)}")
            progress(name, committed_flights(admin, name))
    return Finished(seconds, {name: summary(folder, name) for name in PROCESSORS})


def committed_flights(admin: Admin, group: str) -> int:
    """Flights whose fate the group has committed."""
    return sum(offset for tp, offset in admin.committed(group).items() if tp.topic == "flights")


@contextmanager
def _workers(place: Place, folder: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start a worker for each processor; whatever happens, none is left behind."""
    workers: dict[str, subprocess.Popen[bytes]] = {}
    files: list[IO[bytes]] = []
    try:
        for name in PROCESSORS:
            files += [out := (folder / f"{name}.json").open("wb"), log := (folder / f"{name}.log").open("wb")]
            module = f"processors.{name.replace('-', '_')}"
            command = [*COMMAND, "run", module, "--until-caught-up", "--close-windows", "--json"]
            workers[name] = subprocess.Popen(command, cwd=ROOT, env=place.environment, stdout=out, stderr=log)
        yield workers
    finally:
        for worker in workers.values():
            worker.terminate()
            worker.wait()
        for file in files:
            file.close()


def summary(folder: Path, name: str) -> dict[str, Any]:
    """The last line of JSON that a worker printed."""
    lines = (folder / f"{name}.json").read_text().strip().splitlines()
    if not lines:
        raise CommandFailed(f"{name} printed no summary")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def last_line(folder: Path, name: str) -> str:
    """The last line of a worker's log."""
    lines = (folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"
