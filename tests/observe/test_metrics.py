from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from prometheus_client.parser import text_string_to_metric_families

from streampipe.observe.histogram import BatchHistogram, geometric_bounds, quantile
from streampipe.observe.metrics import PrometheusObserver
from streampipe.observe.observers import Several
from streampipe.observe.summary import Snapshot, read_all
from streampipe.records import TopicPartition
from streampipe.runtime.port import TaskOutput

NOW = 1_700_000_000.0


def samples(observer: PrometheusObserver) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(observer.exposition().decode())
    return {
        (s.name, tuple(sorted((k, v) for k, v in s.labels.items() if k != "pipeline"))): s.value
        for family in families
        for s in family.samples
    }


def value(observer: PrometheusObserver, name: str, **labels: str) -> float | None:
    return samples(observer).get((f"streampipe_{name}", tuple(sorted(labels.items()))))


def output(ok: int = 0, dlq: int = 0, filtered: int = 0, dropped: int = 0) -> TaskOutput:
    made = TaskOutput(offsets={TopicPartition("t", 0): 7})
    made.outcomes["t"] = np.array([filtered, dropped, ok, dlq])
    made.failures = Counter({("t", "expect-1", "validation"): dlq} if dlq else {})
    made.late_drops = Counter({"window-1": dropped} if dropped else {})
    return made


def observer() -> PrometheusObserver:
    return PrometheusObserver("p", ["t"], wall_s=lambda: NOW)


def test_known_label_sets_are_there_at_zero_before_the_first_record() -> None:
    at_start = samples(observer())
    for outcome in ("ok", "filtered", "dlq", "dropped"):
        assert at_start["streampipe_records_total", (("outcome", outcome), ("topic", "t"))] == 0
    assert at_start["streampipe_records_consumed_total", (("topic", "t"),)] == 0
    assert at_start["streampipe_e2e_latency_seconds_count", (("path", "live"), ("topic", "t"))] == 0
    assert at_start["streampipe_commits_total", (("result", "fenced"),)] == 0


def test_the_broker_is_reachable_until_a_worker_says_otherwise() -> None:
    one = observer()
    assert value(one, "broker_reachable") == 1
    one.broker_reachable(False)
    assert value(one, "broker_reachable") == 0


def test_names_carry_units_and_no_series_is_named_created() -> None:
    names = {name for name, _ in samples(observer())}
    assert all(name.startswith("streampipe_") for name in names)
    assert not [name for name in names if name.endswith(("_created", "_ms", "_milliseconds"))]


@given(st.lists(st.tuples(*[st.integers(0, 50)] * 4), max_size=8))
def test_records_by_outcome_add_up_to_what_was_committed(commits: list[tuple[int, int, int, int]]) -> None:
    watched = observer()
    for ok, dlq, filtered, dropped in commits:
        watched.committed("ok", 0.01, output(ok, dlq, filtered, dropped), None)
    for column, outcome in enumerate(("ok", "dlq", "filtered", "dropped")):
        assert value(watched, "records_total", topic="t", outcome=outcome) == sum(c[column] for c in commits)
    dead = value(watched, "dlq_records_total", topic="t", stage="expect-1", failure_class="validation")
    assert (dead or 0) == sum(c[1] for c in commits) == watched.snapshot().by_outcome()["dlq"]
    assert (value(watched, "late_records_dropped_total", stage="window-1") or 0) == sum(c[3] for c in commits)


def test_a_commit_that_failed_counts_no_records() -> None:
    watched = observer()
    watched.committed("fenced", 0.5, output(ok=5), {"t": np.ones(5)})
    assert value(watched, "records_total", topic="t", outcome="ok") == 0
    assert value(watched, "e2e_latency_seconds_count", topic="t", path="live") == 0
    assert value(watched, "commits_total", result="fenced") == 1
    assert value(watched, "commit_duration_seconds_sum", result="fenced") == 0.5


def test_latencies_from_the_future_are_counted_as_skew_and_as_zero() -> None:
    watched = observer()
    watched.committed("ok", 0.0, output(ok=3), {"t": np.array([-5.0, 0.5, -0.1])})
    assert value(watched, "clock_skew_records_total", topic="t") == 2
    assert value(watched, "e2e_latency_seconds_sum", topic="t", path="live") == 0.5
    assert value(watched, "e2e_latency_seconds_count", topic="t", path="live") == 3


def test_the_target_is_an_exact_bound_of_the_latency_histogram() -> None:
    watched = PrometheusObserver("p", ["t"], targets_s=(5.0,))
    watched.committed("ok", 0.0, output(ok=4), {"t": np.array([1.0, 5.0, 5.0001, 80.0])})
    assert value(watched, "e2e_latency_seconds_bucket", topic="t", path="live", le="5.0") == 2


def test_a_batch_costs_one_call_of_numpy_whatever_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    original = np.searchsorted

    def counted(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        return original(*args, **kwargs)  # type: ignore[call-overload]  # passes on whatever came

    monkeypatch.setattr(np, "searchsorted", counted)
    watched = observer()
    for size in (1, 10_000):
        calls = 0
        watched.committed("ok", 0.0, output(ok=size), {"t": np.full(size, 0.2)})
        assert calls == 2  # the latencies and the commit's duration


def test_a_partition_that_went_away_takes_its_series_along() -> None:
    watched = observer()
    here, there = TopicPartition("t", 0), TopicPartition("t", 1)
    watched.rebalanced("assigned", [here, there], 0.1)
    watched.oldest_unprocessed({here: 1_000, there: 2_000})
    assert value(watched, "oldest_unprocessed_timestamp_seconds", topic="t", partition="1") == 2.0
    assert value(watched, "assigned_partitions") == 2
    watched.rebalanced("revoked", [there], 0.1)
    assert value(watched, "oldest_unprocessed_timestamp_seconds", topic="t", partition="1") is None
    assert value(watched, "oldest_unprocessed_timestamp_seconds", topic="t", partition="0") == 1.0
    assert watched.owned() == {here}
    watched.oldest_unprocessed({here: None})
    assert value(watched, "oldest_unprocessed_timestamp_seconds", topic="t", partition="0") is None


def test_the_loop_shows_idle_and_busy_time_and_its_heartbeat() -> None:
    watched = observer()
    watched.polled(0, 0.25)
    watched.polled(5, 0.5)
    watched.consumed("t", 5, 500)
    watched.processed("t", 5, 0.125)
    assert value(watched, "poll_idle_seconds_total") == 0.75
    assert value(watched, "busy_seconds_total") == 0.125
    assert value(watched, "last_poll_timestamp_seconds") == NOW
    assert value(watched, "consumed_bytes_total", topic="t") == 500
    assert value(watched, "processing_duration_seconds_count", stage="t") == 1


def test_a_restore_is_one_observation_once_it_is_through() -> None:
    watched = observer()
    watched.restoring("s", 10, 5, 1.0)
    assert value(watched, "restore_remaining_records", store="s") == 5
    assert value(watched, "restore_remaining_seconds", store="s") == 0.5
    assert value(watched, "restore_duration_seconds_count", store="s") is None
    watched.restoring("s", 5, 0, 0.5)
    watched.restoring("s", 0, 0, 0.0)
    assert value(watched, "restore_remaining_seconds", store="s") == 0
    assert value(watched, "restore_duration_seconds_count", store="s") == 1
    assert value(watched, "restored_records_total", store="s") == 15
    assert value(watched, "restore_duration_seconds_sum", store="s") == 1.5


def test_exactly_one_state_is_on() -> None:
    watched = observer()
    watched.state("restoring")
    on = [key for key, v in samples(watched).items() if key[0] == "streampipe_state" and v == 1]
    assert on == [("streampipe_state", (("streampipe_state", "restoring"),))]


latencies = hnp.arrays(np.float64, st.integers(1, 300), elements=st.floats(0.011, 3_000))


@given(latencies, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_quantile_is_off_by_a_bucket_at_most(values: np.ndarray, q: float) -> None:
    bounds = geometric_bounds(0.01, 38)
    made = BatchHistogram("x", "x", (), bounds)
    made.record((), values)
    estimate = made.quantile(q)
    exact = float(np.quantile(values, q, method="inverted_cdf"))
    assert estimate is not None
    assert exact / 2**0.5 <= estimate * (1 + 1e-9)
    assert estimate <= exact * 2**0.5 * (1 + 1e-9)


@given(latencies, st.integers(1, 7))
def test_how_values_are_cut_into_batches_does_not_change_the_histogram(values: np.ndarray, parts: int) -> None:
    bounds = geometric_bounds(0.01, 38, (5.0,))
    whole, pieces = BatchHistogram("x", "x", (), bounds), BatchHistogram("x", "x", (), bounds)
    whole.record((), values)
    for piece in np.array_split(values, parts):
        pieces.record((), piece)
    assert (whole.counts() == pieces.counts()).all()


def test_no_observation_has_no_quantile() -> None:
    assert quantile(geometric_bounds(0.01, 3), np.zeros(4, np.int64), 0.95) is None
    assert observer().snapshot().p95_s() is None


@given(a=latencies, b=latencies)
def test_snapshots_of_two_workers_add_up_to_that_of_one(
    a: np.ndarray, b: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one, other, both = observer(), observer(), observer()
    for watched, values in ((one, a), (other, b), (both, a), (both, b)):
        watched.consumed("t", len(values), 0)
        watched.committed("ok", 0.0, output(ok=len(values), dlq=1), {"t": values})
    folder = tmp_path_factory.mktemp("snapshots")
    one.snapshot().write(folder / "0-1.json")
    other.snapshot().write(folder / "1-2.json")
    assert read_all(folder) == both.snapshot()
    assert Snapshot() + both.snapshot() == both.snapshot() + Snapshot()


def test_every_observer_is_told() -> None:
    one, other = observer(), observer()
    told = Several(one, other)
    told.state("running")
    told.polled(1, 0.5)
    told.consumed("t", 1, 9)
    told.processed("t", 1, 0.5)
    told.committed("ok", 0.5, output(ok=1), {"t": np.ones(1)})
    told.produced("out", 1)
    told.rebalanced("assigned", [TopicPartition("t", 0)], 0.5)
    told.restoring("s", 1, 0, 0.5)
    told.broker_reachable(False)
    told.oldest_unprocessed({TopicPartition("t", 0): 5})
    assert samples(one) == samples(other)
    assert samples(one) != samples(observer())


def test_the_broker_is_reachable_while_nobody_who_asks_says_otherwise() -> None:
    one = observer()
    told = Several(one)
    told.lag_reachable(False)
    told.broker_reachable(True)
    assert value(one, "broker_reachable") == 0
    told.lag_reachable(True)
    assert value(one, "broker_reachable") == 1
    told.lag_reachable(False)
    told.committed("ok", 0.5, output(ok=1), {})
    assert value(one, "broker_reachable") == 1
