from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cli.conftest import MODULE, Cli

pytestmark = pytest.mark.kafka


def test_the_commands_do_on_kafka_what_they_do_on_the_embedded_log(cli: Cli, kafka_bootstrap: str) -> None:
    unique = str(time.time_ns())
    Path("app.py").write_text(
        MODULE.replace('"counter"', f'"counter-{unique}"').replace('clicks"', f'clicks-{unique}"')
    )
    Path(f"schemas/clicks-{unique}.avsc").write_text(Path("schemas/clicks.avsc").read_text())
    Path("in.csv").write_text(
        "user,n,at\na,1,1714557600000\nd,0,1714557600000\nb,1000,1714557600000\nb,2,1714557601000\n"
    )
    kafka = ("--broker", f"kafka:{kafka_bootstrap}")
    topic, name = f"clicks-{unique}", f"counter-{unique}"
    produced = cli(
        "produce", topic, "in.csv", "--schema", "schemas/clicks.avsc", "--key", "user", "--timestamp", "at",
        "--partitions", "2", *kafka,
    )  # fmt: skip
    assert produced.code == 0, produced.err
    done = cli("run", "app.py", "--until-caught-up", "--json", *kafka)
    assert done.code == 0, done.err
    assert [done.json[fate] for fate in ("ok", "filtered", "dlq", "dropped")] == [2, 1, 1, 0]
    assert sorted(v["value"]["n"] for v in cli("consume", f"good-{topic}", "--json", *kafka).lines) == [1, 2]
    assert cli("lag", name, "--json", *kafka).json["records"] == 0
    (letter,) = cli("dlq", "list", name, "--json", *kafka).json
    assert letter["errors"]["rule"] == "small"
    replayed = cli("replay", "app.py", "--into=-again", "--json", *kafka)
    assert (replayed.code, replayed.json["records"]) == (0, 4), replayed.err
    assert len(cli("consume", f"good-{topic}-again", "--json", *kafka).lines) == 2
