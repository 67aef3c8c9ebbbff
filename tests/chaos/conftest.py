"""One small run on the embedded log, whose evidence is looked at and then tampered with."""

from __future__ import annotations

import os
import random

import pytest

from tests.chaos.driver import run
from tests.chaos.evidence import Evidence
from tests.chaos.place import Scenario


@pytest.fixture(scope="session")
def seed() -> int:
    """STREAMPIPE_TEST_CHAOS_SEED, else a new one each time."""
    return int(os.environ.get("STREAMPIPE_TEST_CHAOS_SEED") or random.SystemRandom().randrange(10**6))


@pytest.fixture(scope="session")
def embedded(seed: int, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """5,000 records and four kills."""
    folder = tmp_path_factory.mktemp("chaos")
    return run(Scenario(f"local:{folder / 'broker.db'}", folder, records=5_000, kills=4, seed=seed))
