from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from streampipe.cli.main import main

SCHEMA = """{"type": "record", "name": "Click", "fields": [
  {"name": "user", "type": "string"},
  {"name": "n", "type": ["null", "int"], "default": null},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"""

MODULE = """
import polars as pl
from streampipe import Processor, Tumbling, agg

processor = Processor("counter", version=1)
clicks = processor.source("clicks", event_time="at", key="user")
good = clicks.filter(pl.col("n") > 0).expect(small=pl.col("n") < 100)
good.to("good-clicks")
good.window(Tumbling("1h"), late="drop").agg(clicks=agg.count()).to("clicks-hourly")
"""


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [orjson.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line in an empty folder, in this process; checks that nothing ever shows a traceback."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("STREAMPIPE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STREAMPIPE_HTTP_PORT", "none")
    Path("schemas").mkdir()
    Path("schemas/clicks.avsc").write_text(SCHEMA)
    Path("app.py").write_text(MODULE)

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err or "--debug" in arguments
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def clicks(cli: Cli) -> Cli:
    """Ten clicks of an hour in 2024: n from 0 to 9 and one of 1000, users a, d and b, in two partitions."""
    events = [f'{{"user": "{"adb"[n % 3]}", "n": {n}, "at": "2024-05-01T10:0{n % 10}:00Z"}}' for n in range(10)]
    events[5] = '{"user": "b", "n": 1000, "at": "2024-05-01T10:05:00Z"}'
    Path("clicks.jsonl").write_text("\n".join(events) + "\n")
    produced = cli(
        "produce", "clicks", "clicks.jsonl", "--schema", "schemas/clicks.avsc", "--key", "user",
        "--timestamp", "at", "--partitions", "2", "--json",
    )  # fmt: skip
    assert (produced.code, produced.json["records"]) == (0, 10), produced.err
    return cli
