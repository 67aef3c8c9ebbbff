from __future__ import annotations

import logging

import pytest

from streampipe.cli.logs import PERIOD_S, SHOWN, LogLines
from streampipe.cli.output import Output


def test_a_line_that_comes_ten_times_a_second_is_shown_a_few_times_and_then_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    lines = LogLines(Output(), lambda: now)
    for n in range(100):
        lines.emit(logging.makeLogRecord({"msg": f"down after {n} ms", "levelname": "INFO", "levelno": 20}))
    lines.emit(logging.makeLogRecord({"msg": "another thing", "levelname": "INFO", "levelno": 20}))
    now = PERIOD_S
    lines.emit(logging.makeLogRecord({"msg": "down after 100 ms", "levelname": "INFO", "levelno": 20}))
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == SHOWN + 2
    assert "another thing" in shown[SHOWN]
    assert shown[-1].endswith("down after 100 ms (97 more like it since)")


def test_debugging_shows_every_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = LogLines(Output())
    for _ in range(SHOWN + 5):
        lines.emit(logging.makeLogRecord({"msg": "detail", "levelname": "DEBUG", "levelno": 10}))
    assert len(capsys.readouterr().err.splitlines()) == SHOWN + 5
