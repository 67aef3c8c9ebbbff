from __future__ import annotations

from pathlib import Path

import pytest

from streampipe.cli.main import hoisted
from tests.cli.conftest import Cli

CANARY = "c4nary-91ab"

CASES: dict[str, tuple[list[str], int, str]] = {
    "unknown topic": (["consume", "nope"], 5, "topic 'nope' does not exist"),
    "unknown topic described": (["topic", "describe", "nope"], 5, "streampipe topic create nope"),
    "unknown group": (["lag", "nope"], 5, "'nope'"),
    "unknown dead letters": (["dlq", "list", "nope"], 5, "nope-dlq"),
    "input topic missing": (["run", "app.py", "--until-caught-up"], 5, "topic 'clicks'"),
    "produce without topic": (["produce", "nope", "x.jsonl", "--schema", "schemas/clicks.avsc"], 5, "topic 'nope'"),
    "no such broker kind": (["topic", "list", "--broker", "redis:x"], 3, "redis:x"),
    "broker without port": (["topic", "list", "--broker", "kafka:host"], 3, "kafka:host"),
    "no such file": (["produce", "t", "gone.jsonl", "--schema", "schemas/clicks.avsc"], 3, "gone.jsonl"),
    "no such schema file": (["produce", "t", "x.jsonl", "--schema", "gone.avsc"], 3, "gone.avsc"),
    "no such place": (["consume", "t", "--from", "yesterday"], 3, "yesterday"),
    "bad suffix": (["replay", "app.py", "--into", "a b"], 3, "suffix"),
    "bad topic setting": (["topic", "create", "t", "--set", "compact"], 3, "KEY=VALUE"),
    "config gone": (["topic", "list", "--config", "gone.toml"], 3, "gone.toml"),
    "config malformed": (["topic", "list", "--config", "bad.toml"], 3, "nearest known one is 'batch_size'"),
    "close windows of an endless input": (["run", "app.py", "--close-windows"], 3, "--until-caught-up"),
    "module raises": (["run", "raises.py"], 4, "raises.py:2: RuntimeError: out of cheese"),
    "module gone": (["describe", "gone.py"], 4, "gone.py"),
    "no topology": (["describe", "empty.py"], 4, "writes nothing"),
    "unknown option": (["topic", "list", "--colour"], 2, "--colour"),
    "unknown command": (["fly"], 2, "fly"),
    "a flag of the wrong kind": (["run", "app.py", "--workers", "two"], 2, "--workers"),
    "a flag out of range": (["consume", "t", "--max", "0"], 2, "streampipe consume --help"),
    "missing option": (["replay", "app.py"], 2, "--into"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_failure_is_one_line_on_stderr_and_its_exit_code(cli: Cli, case: str) -> None:
    arguments, code, words = CASES[case]
    Path("x.jsonl").write_text("{}\n")
    Path("bad.toml").write_text("batch_sise = 1\n")
    Path("raises.py").write_text("\nraise RuntimeError('out of cheese')\n")
    Path("empty.py").write_text("from streampipe import Processor\nprocessor = Processor('p')\n")
    if case == "no such place":
        cli("topic", "create", "t")
    result = cli(*arguments)
    assert (result.code, result.out) == (code, ""), result.err
    assert words in result.err
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1


def test_an_unreachable_broker_is_exit_code_6(cli: Cli) -> None:
    result = cli("topic", "list", "--broker", "kafka:127.0.0.1:1")
    assert (result.code, result.out) == (6, ""), result.err


def test_an_unexpected_exception_is_a_line_that_points_to_debug(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("streampipe.cli.session.open_broker", broken)
    result = cli("topic", "list")
    assert (result.code, result.out) == (1, "")
    assert result.err == "error: ZeroDivisionError: surprise; run again with --debug to see where\n"


def test_an_interrupt_is_exit_code_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("streampipe.cli.session.open_broker", interrupted)
    assert cli("topic", "list").code == 130


def test_a_secret_is_in_no_output_of_a_failure(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", CANARY)
    Path("streampipe.toml").write_text(
        f"broker = 'kafka:127.0.0.1:1'\nregistry = 'http://me:{CANARY}@127.0.0.1:1'\n"
        f"[kafka]\nsasl.password = 'env:SECRET'\nsasl.username = '{CANARY}'\nsasl.mechanism = 'PLAIN'\n"
        f"security.protocol = 'SASL_PLAINTEXT'\n"
    )
    for arguments in (["topic", "list"], ["topic", "list", "--debug"], ["lag", "g"], ["consume", "t"]):
        result = cli(*arguments)
        assert result.code == 6, result.err
        assert CANARY not in result.out + result.err
    registry_down = cli("run", "app.py", "--debug", "--broker", "local:x.db")
    assert registry_down.code == 6, registry_down.err
    assert CANARY not in registry_down.err


def test_global_options_may_stand_anywhere_before_a_double_dash() -> None:
    assert hoisted(["run", "m", "--broker", "local:x", "--quiet", "--config=c"]) == [
        "--broker", "local:x", "--quiet", "--config=c", "run", "m",
    ]  # fmt: skip
    assert hoisted(["consume", "--", "--broker", "x"]) == ["consume", "--", "--broker", "x"]
    assert hoisted(["run", "--broker"]) == ["--broker", "run"]
