"""The locks hold what pyproject.toml asks for, by hash, and name no package index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = {
    "requirements.lock": PROJECT["dependencies"],
    "requirements-dev.lock": [*PROJECT["dependencies"], *EXTRAS["dev"], *EXTRAS["rocksdb"]],
}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(file: str) -> set[str]:
    return {normal(found) for found in re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / file).read_text(), re.MULTILINE)}


@pytest.mark.parametrize("file", LOCKS)
def test_every_dependency_of_the_project_is_locked(file: str) -> None:
    wanted = {normal(re.split(r"[<>=!~\[; ]", requirement)[0]) for requirement in LOCKS[file]}
    assert wanted <= locked(file)


@pytest.mark.parametrize("file", LOCKS)
def test_every_locked_package_has_a_hash_and_no_address(file: str) -> None:
    text = (ROOT / file).read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|--index-url|--find-links|--extra-index", text)


def test_both_locks_agree_on_versions() -> None:
    pins = [set(re.findall(r"^(\S+==\S+)", (ROOT / file).read_text(), re.MULTILINE)) for file in LOCKS]
    assert pins[0] <= pins[1]
