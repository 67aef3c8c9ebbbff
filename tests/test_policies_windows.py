from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streampipe import Retry, Tumbling
from streampipe.windows import milliseconds


@pytest.mark.parametrize(
    ("duration", "ms"),
    [("500ms", 500), ("30s", 30_000), ("1h30m", 5_400_000), ("2d", 172_800_000), (7, 7), (timedelta(seconds=1), 1_000)],
)
def test_durations_are_milliseconds(duration: Any, ms: int) -> None:
    assert milliseconds(duration) == ms


@pytest.mark.parametrize("duration", ["", "5", "h", "1 hour", "-5s", "1.5h"])
def test_what_is_no_duration_is_refused(duration: str) -> None:
    with pytest.raises(ValueError, match="is not like 500ms"):
        milliseconds(duration)


@pytest.mark.parametrize("make", [lambda: Tumbling(0), lambda: Tumbling(5, grace=-1), lambda: Tumbling(-5)])
def test_a_window_without_size_or_with_negative_grace_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="size must be > 0"):
        make()


@pytest.mark.parametrize("options", [{"attempts": 0}, {"backoff_s": -1}, {"backoff_s": 9, "max_backoff_s": 1}])
def test_a_retry_that_cannot_be_is_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="attempts >= 1"):
        Retry(**options)
