"""The processor of the README runs as it is printed there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import polars as pl
import pytest

from demo.dataset import ROOT, read
from demo.load import produce_file
from demo.place import COMMAND, Place
from demo.results import values

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # the fixture is a whole demo, on a busy machine as well


def test_the_processor_of_the_readme_runs_and_computes_what_it_says(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "busy_airports.py").write_text(code)
    (tmp_path / "schemas").symlink_to(ROOT / "schemas")
    place = Place(f"local:{tmp_path / 'broker.db'}", f"local:{tmp_path / 'registry.db'}")
    for topic in ("flights", "airlines"):
        place.streampipe("topic", "create", topic, "--partitions", "4")
        produce_file(place, topic)

    command = [*COMMAND, "run", "busy_airports.py", "--until-caught-up", "--close-windows"]
    subprocess.run(command, cwd=tmp_path, env=place.environment, check=True, capture_output=True, timeout=100)

    departed = read("flights").drop_nulls("dep_time")
    days = departed.group_by("origin", pl.col("time_hour").dt.truncate("1d")).agg(flights=pl.len())
    assert sorted(values(place, "departures-daily")["flights"]) == sorted(days["flights"])
    long = departed.filter(pl.col("dep_delay") >= 360).join(read("airlines"), on="carrier")
    expected = long.select("name", "dest", pl.col("dep_delay") // 60).rows()
    assert sorted(values(place, "long-delays").select("airline", "dest", "hours").rows()) == sorted(expected)
    assert len(expected) >= 5
