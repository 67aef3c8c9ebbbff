"""Through a repartition topic: what becomes of keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from streampipe import Processor
from streampipe.testing import TopologyTestDriver
from tests.operators.support import IN


@pytest.mark.parametrize("key", ["k", None])
def test_repartition_keeps_the_keys_that_records_have_byte_for_byte(key: str | None, tmp_path: Path) -> None:
    (tmp_path / "in.avsc").write_text(IN)
    p = Processor("p")
    p.source("in", key=key).repartition().to("out")
    with TopologyTestDriver(p, schemas=str(tmp_path)) as driver:
        driver.send("in", {"k": "a", "x": 1, "y": None, "s": None}, key=b"not a")
        driver.send("in", {"k": "a", "x": 2, "y": None, "s": None}, key=b"")
        [first, second] = driver.read("out")
    assert (first.key, second.key) == (b"not a", b"")


def test_key_by_makes_the_keys_anew(tmp_path: Path) -> None:
    (tmp_path / "in.avsc").write_text(IN)
    p = Processor("p")
    p.source("in").key_by("k").to("out")
    with TopologyTestDriver(p, schemas=str(tmp_path)) as driver:
        driver.send("in", {"k": "a", "x": 1, "y": None, "s": None}, key=b"not a")
        assert [record.key for record in driver.read("out")] == [b"a"]
