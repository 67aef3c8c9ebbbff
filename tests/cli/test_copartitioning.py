"""Inputs with different numbers of partitions: the repair that the error names is written down, and works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.conftest import SCHEMA, Cli

USERS = [f"user-{n}" for n in range(20)]
INPUTS = f'''
import polars as pl
from streampipe import Processor, Tumbling, agg

processor = Processor("meeting")


def stream(topic):
    return processor.source(topic, event_time="at", key="user", schema="""{SCHEMA}""")


def table(topic):
    return processor.table(topic, key="user", schema="""{SCHEMA}""")


'''
STREAMS = """
joined = stream("a").join(stream("b"), on="user", within="10s", columns=["n"], prefix="b_", name="pairs")
joined.to("out")
"""
STREAMS_NAMED = """
a, b = stream("a"), stream("b")
a.join(b, on="user", within="10s", columns=["n"], prefix="b_", name="pairs").to("out")
"""
TABLE = """
rows = table("b")
stream("a").filter(pl.col("n") >= 0).join(rows, on="user", columns=["n"], prefix="b_", name="with-b").to("out")
"""
TWO_TABLES = """
b, c = table("b"), table("c")
joined = stream("a").join(b, on="user", columns=["n"], prefix="b_", name="with-b")
joined.join(c, on="user", columns=["n"], prefix="c_", name="with-c").to("out")
"""
MERGED = """
b = table("b")
even, odd = stream("a").branch(pl.col("n") % 2 == 0, pl.lit(True))
even = even.join(b, on="user", columns=["n"], prefix="b_", name="with-b")
odd = odd.with_columns(b_n=pl.col("n") + 100)
odd.merge(even, name="all").to("out")
"""
COUNTED = """
a, b = stream("a"), stream("b").with_columns(n=pl.col("n") - 100)
every = a.merge(b, name="all")
every.window(Tumbling("1h")).agg(n=agg.max("n"), b_n=agg.sum("n")).to("out")
"""
TABLES = """
a, b = table("a"), table("b")
a.join(b, columns=["n"], prefix="b_", name="both").to_table("out")
"""


def produce(cli: Cli, topic: str, partitions: int, add: int) -> None:
    """One record of each user, with its number and what is added to it; all of one time, so that none is late."""
    rows = [orjson.dumps({"user": user, "n": n + add, "at": "2024-05-01T10:00:00Z"}) for n, user in enumerate(USERS)]
    Path("rows.jsonl").write_bytes(b"\n".join(rows) + b"\n")
    made = cli(
        "produce", topic, "rows.jsonl", "--schema", "schemas/clicks.avsc", "--key", "user", "--partitions",
        str(partitions),
    )  # fmt: skip
    assert made.code == 0, made.err


def run(cli: Cli, module: str) -> Any:
    Path("meeting.py").write_text(INPUTS + module)
    return cli("run", "meeting.py", "--until-caught-up", "--close-windows")


def rewritten(module: str, error: str) -> str:
    """The module with each code that the error names written in the line of the node that it names."""
    repairs = re.findall(r"to '(\S+)', which needs \d+: write (\S+\(\S+)", error)
    assert repairs
    for node, code in repairs:
        [line] = [line for line in module.splitlines() if f'name="{node}"' in line]
        method = "merge" if ".merge(" in code else "join"
        if code == f".repartition().{method}(...)":
            new = line.replace(f".{method}(", f".repartition().{method}(", 1)
        else:
            assert code == f".{method}(other.repartition(),"
            new = re.sub(rf"\.{method}\((\w+)", rf".{method}(\1.repartition()", line, count=1)
        module = module.replace(line, new)
    return module


@pytest.mark.parametrize(
    ("module", "counts"),
    [
        pytest.param(STREAMS, {"a": 3, "b": 4}, id="a smaller left stream"),
        pytest.param(STREAMS_NAMED, {"a": 4, "b": 3}, id="a smaller right stream"),
        pytest.param(TABLE, {"a": 4, "b": 3}, id="a table with fewer"),
        pytest.param(TABLE, {"a": 2, "b": 3}, id="a table with more"),
        pytest.param(TWO_TABLES, {"a": 2, "b": 3, "c": 4}, id="two tables, each with its own number"),
        pytest.param(MERGED, {"a": 4, "b": 3}, id="what was joined merges with what was not"),
        pytest.param(COUNTED, {"a": 4, "b": 3}, id="a window over two topics"),
    ],
)
def test_the_repair_that_the_error_names_lets_inputs_with_different_numbers_of_partitions_meet(
    cli: Cli, module: str, counts: dict[str, int]
) -> None:
    for add, (topic, partitions) in enumerate(counts.items()):
        produce(cli, topic, partitions, 100 * add)
    refused = run(cli, module)
    assert refused.code == 4
    ran = run(cli, rewritten(module, " ".join(refused.err.split())))
    assert ran.code == 0, ran.err
    rows = [row["value"] for row in cli("consume", "out", "--json").lines]
    expected = [(user, n, 2 * n if module is COUNTED else n + 100) for n, user in enumerate(USERS)]
    assert sorted((row["user"], row["n"], row["b_n"]) for row in rows) == sorted(expected)
    if "c" in counts:
        assert sorted(row["c_n"] for row in rows) == [n + 200 for n in range(20)]


def test_tables_that_are_joined_with_each_other_meet_once_the_smaller_one_has_the_topic_that_the_error_names(
    cli: Cli,
) -> None:
    produce(cli, "a", 4, 0)
    produce(cli, "b", 2, 100)
    refused = run(cli, TABLES)
    assert refused.code == 4
    said = " ".join(refused.err.split())
    assert "table topic 'b' has 2 partitions and needs 4" in said
    command = re.findall(r"streampipe (topic create .*?), write its records there, and read .table\('b-4', ...\)", said)
    assert cli(*shlex.split(command[0])).code == 0
    produce(cli, "b-4", 4, 100)
    ran = run(cli, TABLES.replace('table("b")', 'table("b-4")'))
    assert ran.code == 0, ran.err
    rows = {row["key"]: row["value"] for row in cli("consume", "out", "--json").lines}
    assert {user: (row["n"], row["b_n"]) for user, row in rows.items()} == {
        user: (n, n + 100) for n, user in enumerate(USERS)
    }
