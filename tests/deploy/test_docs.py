"""The docs say what the code does: settings, exit codes, metrics, commands, links."""

from __future__ import annotations

import inspect
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from streampipe import config, errors
from streampipe.observe.health import PROBES
from streampipe.observe.metrics import PrometheusObserver
from tests.deploy.commands import find, parse

ROOT = Path(__file__).resolve().parents[2]
OPERATING = (ROOT / "docs/operating.md").read_text()
DOCS = [ROOT / "README.md", ROOT / "data/README.md", *sorted((ROOT / "docs").glob("*.md"))]


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the first table after a heading, its head left out."""
    table = re.search(rf"^## {heading}\n(?:[^#|\n].*\n|\n)*((?:\|.*\n)+)", text, re.MULTILINE)
    assert table is not None
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]
    return cells[2:]  # after the head and the rule below it


def test_the_table_of_settings_is_that_of_the_code() -> None:
    defaults = config.Settings()
    expected = [
        (f"`{name}`", f"`STREAMPIPE_{name.upper()}`", f"`{str(getattr(defaults, name)).replace('True', 'true')}`")
        for name in config.SCALARS
    ]
    documented = [tuple(row[:3]) for row in rows(OPERATING, "Settings")]
    assert documented[: len(expected)] == expected
    assert [row[0] for row in documented[len(expected) :]] == ["`[kafka]`", "`[registry]`"]


def test_the_example_of_a_settings_file_is_a_valid_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", OPERATING, re.DOTALL)
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    file = tmp_path / "streampipe.toml"
    file.write_text(example.replace("/run/secrets/kafka", str(secret)))
    settings = config.load(file, environment={"REGISTRY_USER": "me:hush"})
    assert settings.broker == tomllib.loads(example)["broker"]
    assert settings.kafka["sasl.password"] == "hush"
    assert settings.registry_options["basic.auth.user.info"] == "me:hush"


def test_every_exit_code_of_an_error_is_documented() -> None:
    documented = {int(row[0]) for row in rows(OPERATING, "Exit codes")}
    raised = {
        found.exit_code for _, found in inspect.getmembers(errors, inspect.isclass) if hasattr(found, "exit_code")
    }
    assert documented == raised | {0, 2, 130}


def test_every_health_path_is_documented() -> None:
    assert {row[0] for row in rows(OPERATING, "Health")} == {f"`/{probe}`" for probe in PROBES} | {"`/metrics`"}


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_metrics_in_the_docs_exist(path: Path) -> None:
    families = PrometheusObserver("x", ["topic"]).registry.collect()
    exported = {f"{f.name}{suffix}" for f in families for suffix in ("", "_total", "_bucket", "_info")}
    named = set(re.findall(r"`[^`\n]*?(streampipe_[a-z0-9_]+)", path.read_text()))
    assert named <= exported


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text()):
        assert (path.parent / link).exists(), link


def commands(path: Path) -> Iterator[str]:
    """Every streampipe command line of a document, in code fences and in the text."""
    text = path.read_text()
    fenced = [
        line for block in re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    inline = re.findall(r"`(streampipe [^`\n]+)`", text)
    for line in [*fenced, *inline]:
        command = line.removeprefix("$ ").split(" #")[0].strip()
        if command.startswith("streampipe ") and "…" not in command:
            yield command


@pytest.mark.parametrize("command", sorted({c for path in DOCS for c in commands(path)}))
def test_a_documented_command_is_one_that_the_program_takes(command: str) -> None:
    words = shlex.split(command)[1:]
    subcommand, rest = find(words)
    if rest:  # else it names a command, without its arguments
        parse(words)
    assert subcommand.name == words[len(words) - len(rest) - 1]


@pytest.mark.parametrize("target", ["setup", "demo", "test", "lint", "bench", "kafka", "clean"])
def test_make_help_lists_the_target(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE)
