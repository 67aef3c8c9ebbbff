from __future__ import annotations

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.contestants import chosen, contestants


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "a,z"], "--only z: choose from a, a:columnar loop"),
        (["--profile", "bare"], "--profile bare: choose from a, a:streampipe (at-least-once), b, c"),
        (["--records", "0"], "Invalid value for '--records'"),
        (["--rounds", "0"], "Invalid value for '--rounds'"),
    ],
)
def test_a_wrong_command_line_says_what_is_right_before_anything_starts(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.split())


def test_picks_are_jobs_or_names_or_both() -> None:
    everyone = contestants(workers2=False)
    assert [c.key for c in chosen(["c"], everyone)] == [
        "c:hand-written", "c:columnar loop", "c:streampipe", "c:streampipe (commits every 100 ms)",
        "c:streampipe (at-least-once)", "c:streampipe (RocksDB)", "c:streampipe (10 keys)",
        "c:streampipe (10 thousand keys)", "c:streampipe (1 million keys)",
    ]  # fmt: skip
    assert [c.job for c in chosen([" hand-written"], everyone)] == ["a", "b", "c", "d"]
    assert [c.key for c in chosen(["d:streampipe", "bare"], everyone)] == ["bare:bare consume", "d:streampipe"]
    assert chosen([""], everyone) == everyone


def test_two_workers_run_once_and_only_when_asked_for() -> None:
    def double(*, workers2: bool) -> list[tuple[str, bool]]:
        return [(c.job, c.once) for c in contestants(workers2=workers2) if "2 workers" in c.name]

    assert double(workers2=False) == []
    assert double(workers2=True) == [("a", True), ("c", True)]
