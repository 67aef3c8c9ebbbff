"""Exactly once under kill -9 (EOS-1, small tier), on a real Kafka and on the embedded log.

STREAMPIPE_TEST_CHAOS_SEED, _RECORDS and _KILLS make another run of it on Kafka, or a larger one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from streampipe.testing.stack import Stack
from tests.chaos.driver import run
from tests.chaos.evidence import Evidence
from tests.chaos.oracle import Oracle, vacuity
from tests.chaos.place import Scenario

pytestmark = pytest.mark.slow
RECORDS = int(os.environ.get("STREAMPIPE_TEST_CHAOS_RECORDS") or 50_000)
KILLS = int(os.environ.get("STREAMPIPE_TEST_CHAOS_KILLS") or 12)


@pytest.mark.kafka
@pytest.mark.timeout(max(500, 20 * KILLS))
def test_killed_workers_leave_exactly_what_the_oracle_says_on_a_real_kafka(
    kafka_stack: Stack, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = Scenario(
        f"kafka:{kafka_stack.bootstrap}", tmp_path, records=RECORDS, kills=KILLS, seed=seed, stack=kafka_stack,
        failpoints=KILLS // 3, zombies=1, stops=1, visitors=1, restarts=1, strangers=1, wipes=1,
    )  # fmt: skip
    prove(run(scenario), seed, capsys)


@pytest.mark.timeout(180)
def test_killed_workers_leave_exactly_what_the_oracle_says_on_the_embedded_log(
    embedded: Evidence, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    prove(embedded, seed, capsys)


def prove(evidence: Evidence, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    oracle = Oracle(evidence)
    with capsys.disabled():
        sys.stdout.write(f"\nseed {seed}: {oracle.summary()}\n")
    assert oracle.findings() == [], f"seed {seed}"
    assert vacuity(evidence) == [], f"seed {seed}"
