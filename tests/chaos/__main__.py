"""Exactly once under fire, on an Apache Kafka of its own: `make chaos`, `make chaos ARGS="--seeds 1,2 --kills 20"`.

One run a seed; exits with 1 when one of them was not exactly as the oracle says, or hit nothing.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from streampipe.testing.stack import Stack
from tests.chaos.driver import run
from tests.chaos.oracle import Oracle, vacuity
from tests.chaos.place import Scenario


def main() -> int:
    given = _arguments()
    seeds = given.seeds or [random.SystemRandom().randrange(10**6)]
    red = [seed for seed in seeds if _failed(given, seed)]
    return int(bool(red))


def _failed(given: argparse.Namespace, seed: int) -> bool:
    started = time.monotonic()
    folder = tempfile.mkdtemp(prefix="streampipe-chaos-")
    with Stack() as stack:
        scenario = Scenario(
            f"kafka:{stack.bootstrap}", Path(folder), seed=seed, stack=stack, finish_within_s=600.0,
            records=given.records, kills=given.kills, failpoints=given.failpoints, zombies=given.zombies,
            stops=given.stops, visitors=given.visitors, restarts=given.restarts, strangers=given.strangers,
            wipes=given.wipes, state=given.state,
        )  # fmt: skip
        sys.stdout.write(f"seed {seed}: {given.records:,} records, logs in {folder}\n")
        sys.stdout.flush()
        evidence = run(scenario)
    oracle = Oracle(evidence)
    findings = [*oracle.findings(), *vacuity(evidence)]
    took = f"{time.monotonic() - started:.0f} s"
    sys.stdout.write(f"seed {seed}: {'RED' if findings else 'green'} after {took}: {oracle.summary()}\n")
    sys.stdout.writelines(f"  {finding}\n" for finding in findings[:50])
    sys.stdout.flush()
    if not findings:
        shutil.rmtree(folder)
    return bool(findings)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], help="default: a new one")
    parser.add_argument("--state", choices=("memory", "rocksdb"), default="memory")
    for what, count, help_ in (
        ("records", 1_000_000, "records fed"),
        ("kills", 200, "kill -9 of a worker"),
        ("failpoints", 66, "how many of the kills a worker does itself, between two calls to the broker"),
        ("zombies", 20, "workers frozen until the group gave them up, and then let go on"),
        ("stops", 20, "SIGTERM and a new start"),
        ("visitors", 5, "one more worker joins and leaves"),
        ("restarts", 5, "restarts of Kafka"),
        ("strangers", 5, "kills while a transaction of somebody else lies open in the changelogs"),
        ("wipes", 5, "kills after which much of the state is missing that is on the disk"),
    ):
        parser.add_argument(f"--{what}", type=int, default=count, help=f"{help_} (default {count:,})")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
