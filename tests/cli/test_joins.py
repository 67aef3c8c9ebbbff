"""Joins by real workers, the second one going on with what the first one left."""

from __future__ import annotations

from pathlib import Path

import orjson

from tests.cli.conftest import SCHEMA, Cli

MODULE = f'''
from streampipe import Processor

processor = Processor("joiner")
clicks = processor.source("clicks", event_time="at", key="user", schema="""{SCHEMA}""")
views = processor.source("views", event_time="at", key="user", schema="""{SCHEMA}""")
clicks.join(views, on="user", within="10s", how="left", columns=["n"], prefix="view_").to("joined")
'''


def produce(cli: Cli, topic: str, *rows: tuple[str, int, str]) -> None:
    lines = [orjson.dumps({"user": user, "n": n, "at": f"2024-05-01T10:00:{second}Z"}) for user, n, second in rows]
    Path("rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    made = cli("produce", topic, "rows.jsonl", "--schema", "schemas/clicks.avsc", "--key", "user", "--partitions", "2")
    assert made.code == 0, made.err


def test_records_that_waited_for_a_partner_meet_it_in_the_next_worker_and_the_others_go_out_alone(cli: Cli) -> None:
    Path("joiner.py").write_text(MODULE)
    produce(cli, "clicks", ("a", 1, "01"), ("b", 2, "02"), ("c", 3, "03"))
    produce(cli, "views", ("a", 10, "05"))
    assert cli("run", "joiner.py", "--until-caught-up").code == 0
    waiting = cli("state", "scan", "joiner.py", "join-1", "--json").lines
    assert sorted(row["key"] for row in waiting) == ["a", "a", "b", "c"]

    produce(cli, "views", ("b", 20, "09"), ("c", 30, "59"))
    assert cli("run", "joiner.py", "--until-caught-up", "--close-windows").code == 0
    joined = [row["value"] for row in cli("consume", "joined", "--from", "earliest", "--json").lines]
    assert sorted((row["user"], row["view_n"]) for row in joined if row["view_n"]) == [("a", 10), ("b", 20)]
    assert [row["user"] for row in joined if not row["view_n"]] == ["c"]
    assert cli("state", "scan", "joiner.py", "join-1", "--json").lines == []


TABLES = f'''
from streampipe import Processor

processor = Processor("tables")
left = processor.table("clicks", key="user", schema="""{SCHEMA}""")
right = processor.table("views", key="user", schema="""{SCHEMA}""")
left.join(right, how="outer", columns=["n"], prefix="view_").to_table("rows")
'''


def test_tables_are_joined_with_what_an_earlier_worker_read_of_the_other_one(cli: Cli) -> None:
    Path("tables.py").write_text(TABLES)
    produce(cli, "clicks", ("a", 1, "01"), ("b", 2, "02"))
    produce(cli, "views", ("c", 30, "03"))
    assert cli("run", "tables.py", "--until-caught-up", "--workers", "2").code == 0
    produce(cli, "views", ("a", 10, "05"))
    produce(cli, "clicks", ("c", 3, "06"), ("a", 4, "07"))
    assert cli("run", "tables.py", "--until-caught-up").code == 0
    rows = {row["key"]: row["value"] for row in cli("consume", "rows", "--json").lines}
    assert {key: (row["n"], row["view_n"]) for key, row in rows.items()} == {"a": (4, 10), "b": (2, None), "c": (3, 30)}
    assert cli("topic", "describe", "rows", "--json").json["config"]["cleanup.policy"] == "compact"
