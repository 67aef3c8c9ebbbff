from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

JOINED = """
from streampipe import Processor, agg

processor = Processor("greeter", version=1)
names = processor.table("names", key="user")
everyone = processor.global_table("names", key="user", name="everyone")
clicks = processor.source("clicks", event_time="at", key="user")
clicks.join(names, on="user").join(everyone, on="user", prefix="also_").to("greetings")
clicks.agg(clicks=agg.count()).to("totals")
"""
NAMES = """{"type": "record", "name": "Name", "fields": [
  {"name": "user", "type": "string"}, {"name": "name", "type": "string"}]}"""


@pytest.fixture
def ran(clicks: Cli) -> Cli:
    """The processor of `clicks` has run, its window still open."""
    assert clicks("run", "app.py", "--until-caught-up").code == 0
    return clicks


@pytest.fixture
def joined(clicks: Cli) -> Cli:
    """A processor with a table, a global table and a running aggregate has run."""
    Path("joined.py").write_text(JOINED)
    Path("schemas/names.avsc").write_text(NAMES)
    Path("names.jsonl").write_text('{"user": "a", "name": "Ann"}\n{"user": "d", "name": "Dan"}\n')
    sent = clicks(
        "produce", "names", "names.jsonl", "--schema", "schemas/names.avsc", "--key", "user", "--partitions", "2"
    )
    assert sent.code == 0, sent.err
    assert clicks("run", "joined.py", "--until-caught-up").code == 0
    return clicks


def greetings(cli: Cli, topic: str) -> list[dict[str, object]]:
    """Values of a topic, in an order that does not depend on its partitions."""
    read = cli("consume", topic, "--json")
    assert read.code == 0, read.err
    return sorted((row["value"] for row in read.lines), key=lambda value: (value["user"], value["n"]))


def test_tables_on_disk_give_what_tables_in_memory_give(joined: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = greetings(joined, "greetings")
    assert in_memory
    Path("joined.py").write_text(JOINED.replace("greeter", "again").replace("greetings", "greetings-2"))
    monkeypatch.setenv("STREAMPIPE_STATE", "rocksdb")
    ran = joined("run", "joined.py", "--until-caught-up")
    assert ran.code == 0, ran.err
    assert Path(".streampipe/state/again/0/lock").exists()
    assert greetings(joined, "greetings-2") == in_memory


def test_open_windows_can_be_looked_into(ran: Cli) -> None:
    rows = ran("state", "scan", "app.py", "window-1", "--json").lines
    assert {row["key"]: row["clicks"] for row in rows} == {"a": 3, "b": 2, "d": 3}
    assert {(row["window_start"], row["window_end"]) for row in rows} == {
        ("2024-05-01T10:00:00Z", "2024-05-01T11:00:00Z")
    }
    assert len(ran("state", "scan", "app.py", "window-1", "--json", "--max", "2").lines) == 2
    assert "2024-05-01T10:00:00.000Z" in ran("state", "scan", "app.py", "window-1").out


def test_one_key_is_shown_in_the_windows_that_hold_a_time(ran: Cli) -> None:
    [row] = ran("state", "get", "app.py", "window-1", "a", "--json").lines
    assert (row["key"], row["user"], row["clicks"], row["timestamp"]) == ("a", "a", 3, "2024-05-01T10:09:00.000Z")
    assert ran("state", "get", "app.py", "window-1", "a", "--window", "2024-05-01T10:00", "--json").lines == [row]
    outside = ran("state", "get", "app.py", "window-1", "a", "--window", "2024-05-01T11:00")
    assert (outside.code, outside.out) == (5, "")
    assert "holds nothing for key 'a' in a window that 2024-05-01T11:00 is in" in outside.err


AROUND = """
from streampipe import Hopping, Processor, Session, Sliding, Tumbling, agg

processor = Processor("around")
clicks = processor.source("clicks", event_time="at", key="user")
for kind in (Tumbling("10s"), Hopping("10s", advance="4s"), Session("8s"), Sliding("8s")):
    name = type(kind).__name__.lower()
    clicks.window(kind, emit="updates", name=name).agg(clicks=agg.count()).to(f"by-{name}")
"""


@pytest.fixture
def around(cli: Cli) -> Cli:
    """One user clicked at 12, 14 and 20 s; windows of every kind are open."""
    Path("around.py").write_text(AROUND)
    events = [f'{{"user": "a", "n": 1, "at": "2024-05-01T10:00:{second}Z"}}' for second in (12, 14, 20)]
    Path("rows.jsonl").write_text("\n".join(events) + "\n")
    sent = cli(
        "produce", "clicks", "rows.jsonl", "--schema", "schemas/clicks.avsc", "--key", "user", "--partitions", "1"
    )
    assert sent.code == 0, sent.err
    ran = cli("run", "around.py", "--until-caught-up")
    assert ran.code == 0, ran.err
    return cli


@pytest.mark.parametrize(
    ("window", "start", "end", "holds_its_end"),
    [("tumbling", 20, 30, False), ("hopping", 16, 26, False), ("session", 12, 20, True), ("sliding", 12, 20, True)],
)
def test_a_window_holds_the_times_that_records_in_it_can_have(
    around: Cli, window: str, start: int, end: int, holds_its_end: bool
) -> None:
    def found(milliseconds: int) -> bool:
        time = f"2024-05-01T10:00:{milliseconds / 1000:06.3f}"
        answer = around("state", "scan", "around.py", window, "--window", time, "--json")
        assert answer.code == 0, answer.err
        return f"10:00:{start}Z" in {row["window_start"][-9:] for row in answer.lines}

    rows = around("state", "scan", "around.py", window, "--json").lines
    assert (f"2024-05-01T10:00:{start}Z", f"2024-05-01T10:00:{end}Z") in {
        (row["window_start"], row["window_end"]) for row in rows
    }
    times = [start * 1000 - 1, start * 1000, end * 1000 - 1, end * 1000, end * 1000 + 1]
    assert [found(time) for time in times] == [False, True, True, holds_its_end, False]


def test_tables_and_running_aggregates_can_be_looked_into_too(joined: Cli) -> None:
    [row] = joined("state", "get", "joined.py", "names", "d", "--json").lines
    assert (row["user"], row["name"], row["timestamp"]) == ("d", "Dan", None)
    assert {row["name"] for row in joined("state", "scan", "joined.py", "everyone", "--json").lines} == {"Ann", "Dan"}
    totals = joined("state", "scan", "joined.py", "agg-1", "--json").lines
    assert {row["user"]: row["clicks"] for row in totals} == {"a": 4, "b": 3, "d": 3}


def test_a_look_joins_no_group_and_registers_nothing(clicks: Cli) -> None:
    before = clicks("topic", "list", "--json").json
    assert clicks("state", "list", "app.py", "--json").json == [
        {"name": "window-1", "kind": "windowedaggregate", "topic": "counter-window-1-changelog", "partitions": None,
         "records": None}
    ]  # fmt: skip
    empty = clicks("state", "scan", "app.py", "window-1")
    assert (empty.code, empty.out) == (5, "")
    assert "nothing has been committed to it" in empty.err
    assert clicks("topic", "list", "--json").json == before
    from streampipe.schemas.registry.local import LocalRegistry

    registry = LocalRegistry(".streampipe/registry.db")
    assert registry.subjects() == ["clicks-value"]
    registry.close()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["window-9"], 5, "has no store 'window-9'; it has: window-1"),
        (["window-1", "--window", "12"], 3, "--window 12: give a time"),
        (["window-1", "--window", "noon"], 3, "'noon' is no place in a topic"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(ran: Cli, arguments: list[str], code: int, says: str) -> None:
    answer = ran("state", "scan", "app.py", *arguments)
    assert (answer.code, answer.out) == (code, "")
    assert says in answer.err


def test_a_store_without_windows_says_so(joined: Cli) -> None:
    answer = joined("state", "scan", "joined.py", "agg-1", "--window", "2024-05-01T10:00")
    assert answer.code == 3
    assert "store 'agg-1' has no windows" in answer.err


REMEMBERING = """
from datetime import timedelta
from streampipe import Processor, Timer, Timers, ValueState

def click(event: dict, count: ValueState[int], timers: Timers) -> None:
    count.set(count.get(0) + 1)
    timers.set(timers.stream_time + timedelta(minutes=5))

def quiet(timer: Timer, count: ValueState[int]) -> dict:
    return {"user": timer.key["user"], "n": count.get(0)}

processor = Processor("remembering", version=1)
clicks = processor.source("clicks", event_time="at", key="user")
clicks.handle(click, name="bursts", on_timer=quiet, to="bursts", idle_after="never")  # whatever the clock does
"""
BURSTS = """{"type": "record", "name": "Burst", "fields": [
  {"name": "user", "type": "string"}, {"name": "n", "type": "long"}]}"""


@pytest.mark.parametrize("state", ["memory", "rocksdb"])
def test_functions_remember_across_runs_and_their_state_can_be_looked_into(
    clicks: Cli, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setenv("STREAMPIPE_STATE", state)
    Path("remembering.py").write_text(REMEMBERING)
    Path("schemas/bursts.avsc").write_text(BURSTS)
    ran = clicks("run", "remembering.py", "--until-caught-up")
    assert ran.code == 0, ran.err
    rows = clicks("state", "scan", "remembering.py", "bursts", "--json").lines
    before = {row["user"]: row["count"] for row in rows}
    assert before
    assert all([timer["name"] for timer in row["timers"]] == ["timer"] for row in rows)
    assert all(timer["at"].startswith("2024-05-01T10:") for row in rows for timer in row["timers"])
    ran = clicks("run", "remembering.py", "--until-caught-up", "--close-windows")
    assert ran.code == 0, ran.err
    told = clicks("consume", "bursts", "--json").lines
    last = {row["value"]["user"]: row["value"]["n"] for row in told}
    assert last == before


def totals(cli: Cli) -> dict[str, int]:
    return {row["user"]: row["clicks"] for row in cli("state", "scan", "joined.py", "agg-1", "--json").lines}


def test_a_reset_forgets_state_and_goes_on_where_the_group_is(joined: Cli) -> None:
    assert totals(joined)
    done = joined("state", "reset", "joined.py", "agg-1", "--yes", "--json")
    assert (done.code, done.lines) == (0, [[{"what": "delete", "where": "greeter-agg-1-changelog"}]])
    assert joined("run", "joined.py", "--until-caught-up").code == 0
    assert totals(joined) == {}


def test_a_rebuild_gives_the_same_state_again_and_names_the_outputs_it_repeats(joined: Cli) -> None:
    before, told = totals(joined), len(joined("consume", "greetings", "--json").lines)
    done = joined("state", "reset", "joined.py", "--rebuild", "--yes", "--json")
    assert done.code == 0
    assert {row["where"] for row in done.lines[0] if row["what"] == "write again"} == {"greetings", "totals"}
    assert joined("run", "joined.py", "--until-caught-up").code == 0
    assert totals(joined) == before
    assert len(joined("consume", "greetings", "--json").lines) == 2 * told


def test_a_rebuild_starts_repartition_topics_anew(clicks: Cli) -> None:
    keyed = JOINED.splitlines()
    keyed = [line for line in keyed if "join" not in line and "table" not in line]
    keyed[-1] = 'clicks.key_by("n").agg(clicks=agg.count()).to("totals")'
    Path("joined.py").write_text("\n".join(keyed))
    assert clicks("run", "joined.py", "--until-caught-up").code == 0
    before = clicks("state", "scan", "joined.py", "agg-1", "--json").lines
    assert before
    assert clicks("state", "reset", "joined.py", "--rebuild", "--yes").code == 0
    assert clicks("run", "joined.py", "--until-caught-up").code == 0
    assert sorted(map(str, clicks("state", "scan", "joined.py", "agg-1", "--json").lines)) == sorted(map(str, before))


def test_another_shape_of_state_is_refused_at_start_with_its_choices_and_a_reset_is_one(joined: Cli) -> None:
    Path("joined.py").write_text(JOINED.replace("clicks=agg.count()", "clicks=agg.count(), most=agg.max('n')"))
    refused = joined("run", "joined.py", "--until-caught-up")
    assert refused.code == 8
    assert "streampipe state reset MODULE agg-1" in refused.err
    assert joined("state", "reset", "joined.py", "agg-1", "--yes").code == 0
    assert joined("run", "joined.py", "--until-caught-up").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nope", "--yes"], 5, "has no state of its own 'nope'; it has: agg-1"),
        (["names", "--yes"], 5, "has no state of its own 'names'"),
        (["agg-1", "--rebuild", "--yes"], 3, "name no store with it"),
        ([], 3, "say --yes where nobody can be asked"),
    ],
)
def test_a_reset_that_cannot_be_is_refused(joined: Cli, arguments: list[str], code: int, message: str) -> None:
    before = totals(joined)
    refused = joined("state", "reset", "joined.py", *arguments)
    assert (refused.code, message in " ".join(refused.err.split())) == (code, True), refused.err
    assert totals(joined) == before


def test_a_reset_that_is_declined_changes_nothing(joined: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    before = totals(joined)
    monkeypatch.setattr("sys.stdin", type("Terminal", (io.StringIO,), {"isatty": lambda _: True})("n\n"))
    declined = joined("state", "reset", "joined.py", "agg-1")
    assert (declined.code, "Forget it?" in declined.err, "error" in declined.err) == (1, True, False)
    assert totals(joined) == before
