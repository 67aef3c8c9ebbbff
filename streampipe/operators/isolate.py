"""Which rows an operation on columns fails for, so that one bad record never takes its neighbours along."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from streampipe.operators.frame import Frame
from streampipe.records import IntArray

FAILURES: tuple[type[BaseException], ...] = (Exception, pl.exceptions.PanicException)
"""What evaluating columns may raise: a panic of Polars is no Exception."""


def failing_rows(frame: Frame, work: Callable[[Frame], object]) -> dict[int, BaseException]:
    """What `work`, which must be row by row, raises for each row that it fails for; found by halving."""
    failed: dict[int, BaseException] = {}

    def search(rows: IntArray) -> None:
        try:
            work(frame.take(rows))
        except FAILURES as error:
            if len(rows) == 1:
                failed[int(rows[0])] = error
                return
            middle = len(rows) // 2
            search(rows[:middle])
            search(rows[middle:])

    search(np.arange(len(frame)))
    return failed
