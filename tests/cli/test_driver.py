"""What a test driver writes against what a worker writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streampipe.testing import TopologyTestDriver
from tests.cli.conftest import MODULE, Cli

T = datetime(2024, 5, 1, 10, tzinfo=UTC)


def click(user: str, n: int, minute: int) -> dict[str, Any]:
    return {"user": user, "n": n, "at": T + timedelta(minutes=minute)}


@pytest.mark.usefixtures("clicks")
def test_a_driver_writes_what_a_worker_writes(cli: Cli) -> None:
    assert cli("run", "app.py", "--until-caught-up", "--close-windows").code == 0
    names: dict[str, Any] = {}
    exec(MODULE, names)
    with TopologyTestDriver(names["processor"], partitions=2) as driver:
        numbers = [(n, "adb"[n % 3]) for n in range(10)]
        driver.send("clicks", *(click(user, n, n) if n != 5 else click("b", 1000, 5) for n, user in numbers))
        driver.close_windows()
        for topic in ("good-clicks", "clicks-hourly"):
            by_worker = [(r["partition"], r["key"], r["value"]) for r in consumed(cli, topic)]
            by_driver = [
                (o.partition, (o.key or b"").decode(), {k: told(v) for k, v in (o.event or {}).items()})
                for o in driver.read(topic)
            ]
            assert sorted(by_worker, key=str) == sorted(by_driver, key=str), topic
        assert [letter.errors["class"] for letter in driver.dead_letters()] == ["validation"]


def consumed(cli: Cli, topic: str) -> list[Any]:
    result = cli("consume", topic, "--from", "earliest", "--json")
    assert result.code == 0, result.err
    assert result.lines
    return result.lines


def told(value: Any) -> Any:
    """As `consume` prints a value."""
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value
