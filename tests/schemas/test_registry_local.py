"""The registry in a file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streampipe.errors import ConfigError, IncompatibleSchema, UnknownSchema
from streampipe.schemas.registry import open_registry
from streampipe.schemas.registry.local import LocalRegistry
from tests.schemas.registry_conformance import RegistryConformance, record


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    made = LocalRegistry(str(tmp_path / "deep" / "registry.db"))
    yield made
    made.close()


class TestLocalRegistry(RegistryConformance):
    pass


def test_ids_count_from_one(registry: LocalRegistry) -> None:
    assert [registry.register("s", record(("a", "int"))), registry.register("t", record(("b", "int")))] == [1, 2]


def test_texts_that_are_the_same_json_are_one_schema(registry: LocalRegistry) -> None:
    text = '{ "name": "R",\n "fields": [{"type": "int", "name": "a"}], "type": "record" }'
    assert registry.register("s", record(("a", "int"))) == registry.register("s", text)


@pytest.mark.parametrize(
    ("new", "fits"),
    [
        (record(("a", "long"), ("b", "string")), True),
        (record(("a", "int"), ("b", "string"), ("c", "int", 1)), True),
        (record(("a", "int")), True),
        (record(("a", "string"), ("b", "string")), False),
        (record(("a", "int"), ("b", "string"), ("c", "int")), False),
    ],
)
def test_a_new_version_must_read_what_the_latest_one_wrote(registry: LocalRegistry, new: str, fits: bool) -> None:
    registry.register("s", record(("a", "int"), ("b", "string")))
    assert (registry.incompatibilities("s", new) == []) is fits
    if fits:
        assert registry.register("s", new) == 2
    else:
        with pytest.raises(IncompatibleSchema, match="'s'"):
            registry.register("s", new)
        assert registry.latest("s").version == 1


def test_an_unknown_id_that_gets_registered_here_is_known_at_once(registry: LocalRegistry) -> None:
    with pytest.raises(UnknownSchema):
        registry.by_id(1)
    registry.register("s", record(("a", "int")))
    assert "int" in registry.by_id(1)


def test_processes_share_the_file_and_never_give_one_id_twice(tmp_path: Path) -> None:
    path = str(tmp_path / "registry.db")
    code = (
        "import sys\n"
        "from streampipe.schemas.registry.local import LocalRegistry\n"
        "from tests.schemas.registry_conformance import record\n"
        "registry = LocalRegistry(sys.argv[1])\n"
        "for i in range(20):\n"
        "    registry.register(f'shared-{i}', record((f'f{i}', 'int')))\n"
        "    registry.register(f'own-{sys.argv[2]}-{i}', record((f'f{i}_{sys.argv[2]}', 'int')))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, path, str(n)]) for n in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    registry = open_registry(f"local:{path}")
    ids = {registry.latest(subject).id for subject in registry.subjects()}
    assert len(registry.subjects()) == 80
    assert ids == set(range(1, 81))
    registry.close()


def test_a_file_that_is_no_registry_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigError, match=r"x\.db"):
        open_registry(f"local:{tmp_path / 'x.db'}")


@pytest.mark.parametrize("address", ["", "local:", "ftp://x", "registry:8081"])
def test_an_address_of_no_known_kind_is_a_config_error(address: str) -> None:
    with pytest.raises(ConfigError):
        open_registry(address)
