from __future__ import annotations

import io

import pytest

from streampipe.cli.output import Output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("columns", "shown"), [(200, True), (40, False)])
def test_a_narrow_terminal_does_without_spare_columns(
    monkeypatch: pytest.MonkeyPatch, columns: int, shown: bool
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout", terminal := Terminal())
    rows = [{"time": "2024-05-01T10:00:00.000Z", "message": "rule 'small' is broken"}]
    Output().rows({"time": "time", "message": "message"}, rows, spare=("time",))
    heading = terminal.getvalue().splitlines()[0]
    assert "message" in heading
    assert ("time" in heading) is shown
