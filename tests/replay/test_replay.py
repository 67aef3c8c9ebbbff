from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from streampipe.brokers.local import LocalBroker
from streampipe.errors import ConfigError
from streampipe.processor import Processor
from streampipe.records import ProduceBatch, TopicPartition
from streampipe.replay.plan import begin, make_plan, renamed, until_from_bytes, until_to_bytes
from streampipe.replay.positions import EARLIEST, LATEST, Position
from streampipe.topology.nodes import Topology
from tests.cli.conftest import Cli, Result, cli, clicks

__all__ = ["cli", "clicks"]


def events(cli: Cli, topic: str) -> Counter[str]:
    return Counter(str(line["value"]) for line in cli("consume", topic, "--json").lines)


def replay(cli: Cli, *options: str) -> Result:
    return cli("replay", "app.py", "--json", *options)


def test_a_replay_of_everything_gives_what_the_live_processor_gave(clicks: Cli) -> None:
    clicks("run", "app.py", "--until-caught-up", "--close-windows")
    done = replay(clicks, "--into=-again", "--close-windows")
    assert (done.code, done.json["records"]) == (0, 10), done.err
    for topic in ("good-clicks", "clicks-hourly", "counter-dlq"):
        again = "counter-again-dlq" if topic == "counter-dlq" else f"{topic}-again"
        assert events(clicks, topic) == events(clicks, again)
        assert events(clicks, topic)


def test_a_replay_leaves_the_live_group_and_its_topics_alone(clicks: Cli) -> None:
    clicks("run", "app.py", "--until-caught-up")
    before = clicks("lag", "counter", "--json").json, events(clicks, "good-clicks")
    assert replay(clicks, "--into=-again").code == 0
    assert (clicks("lag", "counter", "--json").json, events(clicks, "good-clicks")) == before


def test_a_replay_takes_just_the_stretch_it_was_given(clicks: Cli) -> None:
    stretch = ["--from", "2024-05-01T10:02:00", "--until", "2024-05-01T10:05:00"]
    done = replay(clicks, "--into=-part", *stretch)
    assert (done.json["records"], done.json["ok"]) == (3, 3)
    shown = clicks("consume", "good-clicks-part", "--json").lines
    assert sorted(line["value"]["n"] for line in shown) == [2, 3, 4]


def test_a_dry_run_prints_the_plan_and_makes_nothing(clicks: Cli) -> None:
    before = clicks("topic", "list", "--json").json
    plan = replay(clicks, "--into=-x", "--dry-run", "--from", "2024-05-01T10:02:00").json
    assert (plan["group"], plan["records"]) == ("counter-x", 8)
    assert plan["outputs"] == ["clicks-hourly-x", "good-clicks-x"]
    assert sum(row["end"] - row["start"] for row in plan["inputs"]) == 8
    assert clicks("topic", "list", "--json").json == before
    assert clicks("lag", "counter-x").code == 5


def test_a_suffix_that_was_used_is_refused_unless_resumed(clicks: Cli) -> None:
    assert replay(clicks, "--into=-again").code == 0
    refused = replay(clicks, "--into=-again")
    assert (refused.code, refused.out) == (3, "")
    assert "used already" in refused.err
    resumed = replay(clicks, "--into=-again", "--resume")
    assert (resumed.code, resumed.json["records"]) == (0, 0)


def test_two_workers_replay_together(clicks: Cli) -> None:
    done = replay(clicks, "--into=-two", "--workers", "2", "--quiet")
    assert (done.code, done.json["records"]) == (0, 10), done.err
    assert sum(events(clicks, "good-clicks-two").values()) == 8


def test_windows_of_a_replay_do_not_follow_the_wall_clock(clicks: Cli) -> None:
    replay(clicks, "--into=-again")  # without --close-windows: event time never passed the end of the hour
    assert not events(clicks, "clicks-hourly-again")


@pytest.fixture
def broker(tmp_path: Path) -> LocalBroker:
    made = LocalBroker(tmp_path / "broker.db")
    admin, producer = made.admin(), made.producer()
    for topic in ("s", "t"):
        admin.create_topic(topic, 2)
        producer.produce(ProduceBatch(topic, [None] * 6, [b"v"] * 6, [10, 20, 30, 40, 50, 60], [0, 0, 0, 1, 1, 1]))
    producer.flush()
    producer.close()
    admin.close()
    return made


def topology() -> Topology:
    processor = Processor("p")
    table = processor.table("t", key="k")
    processor.source("s", key="k").join(table, on="k").to("out")
    return renamed(processor.topology, "-r")


def test_a_joined_table_is_read_whole_whatever_the_stretch(broker: LocalBroker) -> None:
    admin = broker.admin()
    plan = make_plan(topology(), admin, Position("time", 30), Position("time", 50))
    assert [(s.topic, s.partition, s.start, s.end) for s in plan.stretches] == [
        ("s", 0, 2, 3), ("s", 1, 0, 1), ("t", 0, 0, 3), ("t", 1, 0, 3),
    ]  # fmt: skip
    assert plan.records == 8
    assert until_from_bytes(until_to_bytes(plan)) == plan.until
    begin(plan, admin)
    assert admin.committed("p-r") == {
        TopicPartition("s", 0): 2, TopicPartition("s", 1): 0, TopicPartition("t", 0): 0, TopicPartition("t", 1): 0,
    }  # fmt: skip
    assert admin.committed("p") == {}
    admin.close()


def test_a_stretch_that_ends_before_it_begins_is_empty(broker: LocalBroker) -> None:
    admin = broker.admin()
    plan = make_plan(topology(), admin, LATEST, EARLIEST)
    assert all(s.records == 0 for s in plan.stretches if s.topic == "s")
    admin.close()


def test_an_output_topic_with_records_is_refused(broker: LocalBroker) -> None:
    admin, producer = broker.admin(), broker.producer()
    admin.create_topic("out-r", 1)
    make_plan(topology(), admin, EARLIEST, LATEST)  # an empty one is fine
    producer.produce(ProduceBatch("out-r", [None], [b"v"]))
    producer.flush()
    producer.close()
    with pytest.raises(ConfigError, match="'out-r' holds records"):
        make_plan(topology(), admin, EARLIEST, LATEST)
    admin.close()
