from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


def test_a_topic_is_created_once_and_shows_its_offsets(cli: Cli) -> None:
    assert cli("topic", "create", "t", "--partitions", "3", "--set", "cleanup.policy=compact", "--json").json == {
        "topic": "t", "partitions": 3, "created": True,
    }  # fmt: skip
    assert cli("topic", "create", "t", "--partitions", "3", "--json").json["created"] is False
    refused = cli("topic", "create", "t", "--partitions", "4")
    assert (refused.code, refused.out) == (3, "")
    assert "already with 3 partitions" in refused.err
    described = cli("topic", "describe", "t", "--json").json
    assert described["config"] == {"cleanup.policy": "compact"}
    assert described["partitions"][2] == {"partition": 2, "earliest": 0, "latest": 0, "records": 0}


def test_topics_are_listed_with_their_records(clicks: Cli) -> None:
    assert clicks("topic", "list", "--json").json == [{"topic": "clicks", "partitions": 2, "records": 10}]
    assert "clicks" in clicks("topic", "list").out


def test_consume_prints_decoded_records_with_key_and_time(clicks: Cli) -> None:
    lines = clicks("consume", "clicks", "--json").lines
    assert len(lines) == 10
    first = next(line for line in lines if line["value"]["n"] == 0)
    assert first["key"] == first["value"]["user"] == "a"
    assert first["timestamp"] == "2024-05-01T10:00:00.000Z"
    assert {line["key"] for line in lines} == {"a", "b", "d"}
    assert {line["partition"] for line in lines} == {0, 1}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--max", "3"], 3),
        (["--from", "latest"], 0),
        (["--from", "2024-05-01T10:07:00"], 3),
        (["--from", "2099-01-01"], 0),
        (["--from", "offset:1"], 8),
    ],
)
def test_consume_reads_the_stretch_that_was_asked_for(clicks: Cli, options: list[str], expected: int) -> None:
    assert len(clicks("consume", "clicks", "--json", *options).lines) == expected


def test_what_cannot_be_decoded_is_shown_as_bytes_with_the_reason(cli: Cli) -> None:
    from streampipe.brokers.local import LocalBroker
    from streampipe.records import ProduceBatch

    cli("topic", "create", "t")
    producer = LocalBroker(".streampipe/broker.db").producer()
    producer.produce(ProduceBatch("t", [b"k", None, b"\xff"], [b"plain", None, b"\x00\x00\x00\x00\x63x"]))
    producer.flush()
    producer.close()
    plain, tombstone, unknown = cli("consume", "t", "--json").lines
    assert (plain["value"], plain["raw"]) == (None, b"plain".hex())
    assert "magic byte" in plain["error"]
    assert (tombstone["key"], tombstone["value"], "error" in tombstone) == (None, None, False)
    assert unknown["key"] == "0xff"
    assert "schema id 99" in unknown["error"]
    shown = cli("consume", "t").out
    assert "(tombstone)" in shown
    assert "0x706c61696e" in shown


def test_a_key_with_control_characters_cannot_command_the_terminal(cli: Cli) -> None:
    from streampipe.brokers.local import LocalBroker
    from streampipe.records import ProduceBatch

    cli("topic", "create", "t")
    producer = LocalBroker(".streampipe/broker.db").producer()
    producer.produce(ProduceBatch("t", [b"\x1b[31m\nred"], [None]))
    producer.flush()
    producer.close()
    shown = cli("consume", "t").out
    assert "\x1b" not in shown
    assert shown.count("\n") == 1
    assert r"\x1b[31m\nred" in shown


def test_a_run_accounts_for_every_record(clicks: Cli) -> None:
    done = clicks("run", "app.py", "--until-caught-up", "--close-windows", "--json")
    assert done.code == 0, done.err
    summary = done.json
    assert {fate: summary[fate] for fate in ("ok", "filtered", "dlq", "dropped")} == {
        "ok": 8, "filtered": 1, "dlq": 1, "dropped": 0,
    }  # fmt: skip
    assert summary["records"] == 10
    hourly = clicks("consume", "clicks-hourly", "--json").lines
    assert sum(line["value"]["clicks"] for line in hourly) == 8
    again = clicks("run", "app.py", "--until-caught-up", "--json").json
    assert again["records"] == 0


def test_the_table_of_a_run_names_its_inputs(clicks: Cli) -> None:
    done = clicks("run", "app.py:processor", "--until-caught-up", "--at-least-once", "--batch-size", "3")
    assert done.code == 0
    assert "10 records" in done.out
    assert "clicks" in done.out


def test_dead_letters_are_listed_by_class_and_shown_whole(clicks: Cli) -> None:
    clicks("run", "app.py", "--until-caught-up")
    (letter,) = clicks("dlq", "list", "counter", "--json").json
    assert letter["class"] == "validation"
    assert letter["errors"]["rule"] == "small"
    assert letter["key"] == "b"
    assert letter["origin"].startswith("clicks[")
    assert clicks("dlq", "list", "counter-dlq", "--class", "late", "--json").json == []
    assert clicks("dlq", "list", "counter", "--class", "sadness").code == 3
    place = (letter["topic"], str(letter["partition"]), str(letter["offset"]))
    shown = clicks("dlq", "show", *place, "--json").json
    assert shown["value"] == {"user": "b", "n": 1000, "at": "2024-05-01T10:05:00Z"}
    text = clicks("dlq", "show", *place).out
    assert "validation" in text
    assert '"n":1000' in text
    assert clicks("dlq", "show", letter["topic"], str(letter["partition"]), "99").code == 5


def test_the_newest_dead_letters_are_as_many_as_asked_for_wherever_they_are(clicks: Cli) -> None:
    broken = '{"user": "b", "n": 500, "at": "2024-05-01T10:05:00Z"}\n'
    Path("broken.jsonl").write_text(9 * broken)
    clicks("produce", "clicks", "broken.jsonl", "--schema", "schemas/clicks.avsc", "--key", "user")
    clicks("run", "app.py", "--until-caught-up")
    everything = clicks("dlq", "list", "counter", "--json").json
    assert len(everything) == 10
    assert clicks("dlq", "list", "counter", "--max", "8", "--json").json == everything[2:]


def test_lag_counts_what_is_not_committed_and_is_known_with_all_workers_dead(clicks: Cli) -> None:
    clicks("run", "app.py", "--until-caught-up")
    lag = clicks("lag", "counter", "--json").json
    assert (lag["records"], lag["seconds"]) == (0, 0.0)
    clicks("produce", "clicks", "clicks.jsonl", "--schema", "schemas/clicks.avsc", "--key", "user", "--timestamp", "at")
    lag = clicks("lag", "counter", "--json").json
    assert lag["records"] == sum(p["records"] for p in lag["partitions"]) == 10
    assert {p["committed"] is None for p in lag["partitions"]} == {False}
    assert lag["seconds"] > 86_400  # the clicks are of 2024
    assert "total" in clicks("lag", "counter").out


def test_describe_needs_neither_broker_nor_registry(cli: Cli) -> None:
    described = cli("describe", "app.py", "--json", "--broker", "kafka:127.0.0.1:1").json
    assert described["inputs"] == ["clicks"]
    assert described["outputs"] == ["clicks-hourly", "good-clicks"]
    assert cli("describe", "app.py", "--mermaid").out.startswith("flowchart")
    assert "counter" in cli("describe", "app.py").out
    assert not Path(".streampipe").exists()


def test_two_workers_share_the_work_and_one_summary(clicks: Cli) -> None:
    done = clicks("run", "app.py", "--until-caught-up", "--workers", "2", "--json", "--quiet")
    assert done.code == 0, done.err
    assert (done.json["records"], done.json["ok"]) == (10, 8)


def test_data_goes_to_stdout_alone(clicks: Cli) -> None:
    command = [sys.executable, "-m", "streampipe.cli.main", "consume", "clicks", "--json"]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": root}, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 10


def test_every_command_explains_itself_with_an_example(cli: Cli) -> None:
    for command in (
        ["run"], ["describe"], ["produce"], ["consume"], ["lag"], ["replay"], ["topic", "create"], ["topic", "list"],
        ["topic", "describe"], ["dlq", "list"], ["dlq", "show"],
    ):  # fmt: skip
        shown = cli(*command, "--help")
        assert shown.code == 0
        assert f"Example: streampipe {' '.join(command)}" in " ".join(shown.out.split())
