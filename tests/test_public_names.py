from __future__ import annotations

import streampipe


def test_these_are_the_names_that_users_import() -> None:
    assert sorted(streampipe.__all__) == [
        "Fatal", "Hopping", "ListState", "MapState", "Processor", "Retry", "Retryable", "Session", "Skip", "Sliding",
        "Stream", "Table", "Timer", "Timers", "Tumbling", "Update", "ValueState", "agg",
    ]  # fmt: skip
    assert all(hasattr(streampipe, name) for name in streampipe.__all__)
