"""Worker processes that are stopped, killed and started again."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from streampipe.brokers.opening import open_broker
from streampipe.brokers.port import Broker
from tests.runtime.fakes import Names, await_true, committed, fill, numbered, oracle, read, results


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return f"local:{tmp_path / 'broker.db'}"
    return f"kafka:{request.getfixturevalue('kafka_bootstrap')}"


@pytest.fixture
def broker(address: str) -> Broker:
    return open_broker(address)


@contextmanager
def process(address: str, names: Names, slot: int, progress: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    options |= {"progress": str(progress), "repartitioned": names.repartitioned}
    argv = [sys.executable, "-m", "tests.runtime.process", address, names.app, str(slot), json.dumps(options)]
    child = subprocess.Popen(argv)
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def test_sigterm_commits_what_is_processed_and_exits_with_success(
    address: str, broker: Broker, names: Names, tmp_path: Path
) -> None:
    rows = numbered(10, 100)
    fill(broker, names.input, rows)
    first, second = tmp_path / "first", tmp_path / "second"
    changes = {"batch_size": 50, "commit_interval_ms": 60_000}
    with process(address, names, 0, first, pause_s=0.02, settings=changes) as child:
        await_true(first.exists)
        started = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
        assert time.monotonic() - started < 30
    done = int(Path(f"{first}.done").read_text())
    assert 0 < done < 1000
    assert sum(committed(broker, names.app).values()) == done
    with process(address, names, 0, second, until_caught_up=True) as child:
        assert child.wait(60) == 0
    assert done + int(Path(f"{second}.done").read_text()) == 1000
    assert results(broker, names) == oracle(rows)


def test_a_second_signal_exits_within_five_seconds_and_commits_nothing(
    address: str, broker: Broker, names: Names, tmp_path: Path
) -> None:
    fill(broker, names.input, numbered(5, 5))
    progress = tmp_path / "progress"
    with process(address, names, 0, progress, hang=True) as child:
        await_true(progress.exists)
        child.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert child.poll() is None
        started = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 130
        assert time.monotonic() - started < 5.5
    assert committed(broker, names.app) == {}
    assert read(broker, names.out) == []


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_workers_count_every_record_exactly_once(
    address: str, broker: Broker, names: Names, tmp_path: Path
) -> None:
    names = Names(names.app, repartitioned=True)
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    options: dict[str, Any] = {
        "pause_s": 0.01,
        "settings": {"batch_size": 60, "commit_interval_ms": 100},
        "kafka": {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"},
    }
    kills = 0
    for round_ in range(5):
        # New rows each time: the first worker to have partitions may be through with the old ones before the other.
        fill(broker, names.input, numbered(30, 40, start=40 * round_))
        progress = [tmp_path / f"progress{round_}-{slot}" for slot in (0, 1)]
        with (
            process(address, names, 0, progress[0], **options) as one,
            process(address, names, 1, progress[1], **options) as two,
        ):
            await_true(lambda progress=progress: any(path.exists() for path in progress), 60)  # type: ignore[misc] # a default
            time.sleep(chance.uniform(0.0, 0.4))
            for child in (one, two):
                kills += child.poll() is None
                child.kill()
    with process(address, names, 0, tmp_path / "last", until_caught_up=True) as child:
        assert child.wait(90) == 0
    assert kills == 10
    assert results(broker, names) == oracle(numbered(30, 200)), f"seed {seed}"


def freeze_between_writes(worker: subprocess.Popen[bytes], address: str) -> None:
    """Stop it where it holds no lock of the embedded log's file, which no broker over a network would have."""
    kind, _, path = address.partition(":")
    while True:
        worker.send_signal(signal.SIGSTOP)
        if kind != "local":
            return
        with closing(sqlite3.connect(path, timeout=0.5, isolation_level=None)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                worker.send_signal(signal.SIGCONT)
                continue
            db.execute("ROLLBACK")
            return


@pytest.mark.slow
def test_a_worker_that_slept_through_its_session_leaves_no_trace_and_joins_again(
    address: str, broker: Broker, names: Names, tmp_path: Path
) -> None:
    options: dict[str, Any] = {
        "pause_s": 0.05,
        "settings": {"batch_size": 30, "commit_interval_ms": 1000},
        "kafka": {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"},
    }
    first, second = tmp_path / "first", tmp_path / "second"
    fill(broker, names.input, numbered(10, 100))
    with process(address, names, 0, first, **options) as sleeper:
        await_true(first.exists)
        time.sleep(0.5)
        freeze_between_writes(sleeper, address)
        before = int(first.read_text())
        with process(address, names, 1, second, **options) as other:
            await_true(lambda: sum(committed(broker, names.app).values()) >= 1000, 60)
            sleeper.send_signal(signal.SIGCONT)
            fill(broker, names.input, numbered(10, 20, start=100))
            await_true(lambda: sum(committed(broker, names.app).values()) >= 1200, 60)
            other.send_signal(signal.SIGTERM)
            assert other.wait(30) == 0
        fill(broker, names.input, numbered(10, 20, start=120))
        await_true(lambda: sum(committed(broker, names.app).values()) >= 1400, 60)
        assert sleeper.poll() is None
        sleeper.send_signal(signal.SIGTERM)
        assert sleeper.wait(30) == 0
    assert 0 < before < 1000
    assert results(broker, names) == oracle(numbered(10, 140))


SUPERVISOR = """
import sys
from streampipe.runtime.supervisor import run_workers
import streampipe.runtime.supervisor as supervisor
supervisor.FIRST_BACKOFF_S = 0.05
sys.exit(run_workers({n}, lambda slot: [{script!r}, str(slot)]))
"""

CHILD = """
import os, signal, sys, time
from pathlib import Path
folder, slot = Path({folder!r}), sys.argv[1]
runs = folder / ("runs" + slot)
runs.open("a").write(f"{{os.getpid()}} {{os.environ['POLARS_MAX_THREADS']}}\\n")
starts = len(runs.read_text().splitlines())
{body}
"""


@contextmanager
def supervisor(folder: Path, body: str, n: int = 2) -> Iterator[subprocess.Popen[bytes]]:
    script = folder / "child.py"
    script.write_text(CHILD.format(folder=str(folder), body=body))
    child = subprocess.Popen([sys.executable, "-c", SUPERVISOR.format(n=n, script=str(script))])
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def runs(folder: Path, slot: int) -> list[list[str]]:
    file = folder / f"runs{slot}"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def alive(pid: str) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_worker_that_dies_is_started_again_and_the_others_go_on(tmp_path: Path) -> None:
    body = "if slot == '1' and starts < 3: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(1.5)"
    with supervisor(tmp_path, body) as parent:
        assert parent.wait(30) == 0
    assert len(runs(tmp_path, 0)) == 1
    assert len(runs(tmp_path, 1)) == 3
    assert runs(tmp_path, 0)[0][1] == "1"


def test_a_worker_that_keeps_dying_stops_all(tmp_path: Path) -> None:
    with supervisor(tmp_path, "if slot == '1': sys.exit(1)\ntime.sleep(60)") as parent:
        assert parent.wait(30) == 1
    assert len(runs(tmp_path, 1)) == 6
    assert not alive(runs(tmp_path, 0)[0][0])


def test_a_final_error_of_one_worker_stops_all_at_once_and_is_the_exit_code(tmp_path: Path) -> None:
    with supervisor(tmp_path, "if slot == '1': sys.exit(7)\ntime.sleep(60)") as parent:
        assert parent.wait(30) == 7
    assert len(runs(tmp_path, 1)) == 1
    assert not alive(runs(tmp_path, 0)[0][0])


def test_signals_reach_the_workers_and_a_stopped_worker_stays_stopped(tmp_path: Path) -> None:
    body = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n(folder / ('up' + slot)).touch()\ntime.sleep(60)"
    with supervisor(tmp_path, body) as parent:
        await_true(lambda: (tmp_path / "up0").exists() and (tmp_path / "up1").exists())
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 0
    assert len(runs(tmp_path, 0)) == len(runs(tmp_path, 1)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="looks for children in /proc")
def test_one_ctrl_c_in_a_terminal_drains_all_workers_and_loses_nothing(tmp_path: Path) -> None:
    address = f"local:{tmp_path / 'broker.db'}"
    broker, names = open_broker(address), Names("app")
    names.create(broker)
    rows = numbered(10, 100)
    fill(broker, names.input, rows)
    progress = [tmp_path / "slot0", tmp_path / "slot1"]
    options = {"pause_s": 0.2, "settings": {"batch_size": 20, "commit_interval_ms": 60_000}}
    argv = [
        ["-m", "tests.runtime.process", address, names.app, str(slot), json.dumps(options | {"progress": str(path)})]
        for slot, path in enumerate(progress)
    ]
    code = f"import sys; from streampipe.runtime.supervisor import *; sys.exit(run_workers(2, {argv}.__getitem__))"
    parent = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        await_true(lambda: all(path.exists() for path in progress))
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.wait(30) == 0
    finally:
        parent.kill()
        parent.wait()
    assert len(children) == 2
    assert not any(map(alive, children))
    done = sum(int(Path(f"{path}.done").read_text()) for path in progress)
    assert 0 < done < 1000
    assert sum(committed(broker, names.app).values()) == done
    with process(address, names, 0, tmp_path / "next", until_caught_up=True) as child:
        assert child.wait(60) == 0
    assert done + int((tmp_path / "next.done").read_text()) == 1000
    assert results(broker, names) == oracle(rows)


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_workers_do_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    with supervisor(tmp_path, "(folder / ('up' + slot)).touch()\ntime.sleep(60)") as parent:
        await_true(lambda: (tmp_path / "up0").exists() and (tmp_path / "up1").exists())
        parent.kill()
        await_true(lambda: not any(alive(runs(tmp_path, slot)[0][0]) for slot in (0, 1)))


@pytest.fixture
def names(broker: Broker) -> Names:
    found = Names(f"app{uuid4().hex[:8]}")
    found.create(broker)
    return found
