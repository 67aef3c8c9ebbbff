"""The cases of the benchmark of state, small: each runs, and a wrong count shows."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from benchmarks import state, state_cases
from benchmarks.state_cases import BATCH, CASES, of_case, of_tables


@pytest.mark.parametrize("name", CASES)
def test_every_case_gives_results_that_add_up(name: str) -> None:
    figures = of_case(name, 2 * BATCH, keep=True)
    assert figures.wrong == ""
    assert figures.cpu > 0
    assert figures.changelog > 0
    assert (figures.restore_rate or 0) > 0


def test_results_that_do_not_add_up_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, "odd", state_cases.Case("odd", CASES["running"].build, adds_up_to=2.0, last_only=True))
    assert of_case("odd", BATCH, keep=True).wrong == f"n adds up to {BATCH}, not {2 * BATCH}"


@pytest.mark.parametrize("kind", ["memory", "rocksdb"])
def test_tables_are_restored_and_looked_up(kind: str) -> None:
    figures = of_tables(kind, 2 * BATCH)
    assert (figures.changelog, figures.wrong) == (BATCH, "")


def test_the_command_writes_json_and_a_page(tmp_path: Path) -> None:
    flags = [
        "--records",
        str(BATCH),
        "--only",
        "running-1m",
        "--json",
        str(tmp_path / "j"),
        "--docs",
        str(tmp_path / "d"),
    ]
    result = CliRunner().invoke(state.app, flags)
    assert result.exit_code == 0, result.output
    [figures] = orjson.loads((tmp_path / "j").read_bytes())["figures"]
    assert figures["state_mb"] > 0
    assert "| running aggregate | 1,000,000 | 100,000 |" in (tmp_path / "d").read_text()
    assert CliRunner().invoke(state.app, ["--only", "nope"]).exit_code == 2
