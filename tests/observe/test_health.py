from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from streampipe.observe.health import REBALANCE_GRACE_S, STUCK_POLL_S, STUCK_RESTORE_S, Health
from streampipe.observe.server import MetricsServer, serve


class Ticks:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def running(health: Health, _ticks: Ticks) -> None:
    health.rebalanced("assigned", [], 0.0)
    health.state("running")


def rebalancing_for(seconds: float) -> Callable[[Health, Ticks], None]:
    def arrange(health: Health, ticks: Ticks) -> None:
        running(health, ticks)
        health.state("rebalancing")
        ticks.now += seconds
        health.polled(0, 0.1)

    return arrange


def in_state(*states: str) -> Callable[[Health, Ticks], None]:
    def arrange(health: Health, ticks: Ticks) -> None:
        for state in states:
            if state == "running":
                running(health, ticks)
            health.state(state)  # type: ignore[arg-type]  # the table holds states only

    return arrange


def unreachable(health: Health, ticks: Ticks) -> None:
    running(health, ticks)
    health.broker_reachable(False)


def stuck_poll(health: Health, ticks: Ticks) -> None:
    running(health, ticks)
    ticks.now += STUCK_POLL_S + 1


def slow_restore(health: Health, ticks: Ticks) -> None:
    health.state("restoring")
    for _ in range(5):
        ticks.now += STUCK_RESTORE_S - 1
        health.restoring("s", 10, 90, 1.0)


def stuck_restore(health: Health, ticks: Ticks) -> None:
    health.state("restoring")
    ticks.now += STUCK_RESTORE_S + 1
    health.restoring("s", 0, 90, 1.0)


TABLE: dict[str, tuple[Callable[[Health, Ticks], None], bool, bool, bool]] = {
    # state: livez, readyz, startupz
    "starting": (in_state(), True, False, False),
    "restoring while it goes on": (slow_restore, True, False, False),
    "restoring without progress": (stuck_restore, False, False, False),
    "running": (running, True, True, True),
    "rebalancing shortly": (rebalancing_for(REBALANCE_GRACE_S - 1), True, True, True),
    "rebalancing for long": (rebalancing_for(REBALANCE_GRACE_S + 1), True, False, True),
    "broker unreachable": (unreachable, True, False, True),
    "draining": (in_state("running", "draining"), True, False, True),
    "failed": (in_state("running", "failed"), False, False, False),
    "stuck poll": (stuck_poll, False, False, False),
}


@pytest.mark.parametrize("state", TABLE)
def test_the_probes_answer_by_the_table(state: str) -> None:
    arrange, *expected = TABLE[state]
    ticks = Ticks()
    health = Health(ticks)
    arrange(health, ticks)
    assert [health.ok("livez"), health.ok("readyz"), health.ok("startupz")] == expected


def test_polling_keeps_an_idle_worker_alive() -> None:
    ticks = Ticks()
    health = Health(ticks)
    running(health, ticks)
    for _ in range(5):
        ticks.now += STUCK_POLL_S - 1
        health.polled(0, 1.0)
    assert health.ok("livez")


@pytest.fixture
def served() -> Iterator[tuple[MetricsServer, Health]]:
    health = Health()
    server = MetricsServer("127.0.0.1", 0, lambda: b"streampipe_x 1.0\n", health)
    yield server, health
    server.close()


def get(server: MetricsServer, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_the_server_gives_metrics_probes_and_404(served: tuple[MetricsServer, Health]) -> None:
    server, health = served
    assert get(server, "/metrics") == (200, b"streampipe_x 1.0\n")
    assert get(server, "/livez")[0] == 200
    assert get(server, "/readyz")[0] == 503
    running(health, Ticks())
    assert get(server, "/readyz?verbose")[0] == get(server, "/startupz")[0] == 200
    assert get(server, "/")[0] == get(server, "/../etc/passwd")[0] == 404


def test_a_taken_port_is_a_warning_and_not_the_end(
    served: tuple[MetricsServer, Health], caplog: pytest.LogCaptureFixture
) -> None:
    server, health = served
    with caplog.at_level(logging.WARNING, "streampipe"):
        assert serve("127.0.0.1", server.port, lambda: b"", health) is None
    assert f"127.0.0.1:{server.port} cannot be bound" in caplog.text
    assert get(server, "/metrics")[0] == 200
