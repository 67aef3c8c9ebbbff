"""Where the schema of a topic comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from streampipe.errors import ConfigError, UnknownSubject
from streampipe.schemas.catalog import SchemaCatalog
from streampipe.schemas.registry.local import LocalRegistry

A, B, C = (f'{{"type":"record","name":"{name}","fields":[]}}' for name in "ABC")


@pytest.fixture
def catalog(tmp_path: Path) -> SchemaCatalog:
    (tmp_path / "schemas").mkdir()
    return SchemaCatalog(LocalRegistry(str(tmp_path / "registry.db")), tmp_path / "schemas")


def test_explicit_beats_the_folder_and_the_folder_beats_the_registry(catalog: SchemaCatalog, tmp_path: Path) -> None:
    with pytest.raises(UnknownSubject):
        catalog.for_topic("t", None)
    catalog.register("t", A)
    assert '"A"' in catalog.for_topic("t", None)
    (catalog.folder / "t.avsc").write_text(B)
    assert catalog.for_topic("t", None) == B
    (tmp_path / "other.avsc").write_text(C)
    assert catalog.for_topic("t", str(tmp_path / "other.avsc")) == C
    assert catalog.for_topic("t", A) == A


@pytest.mark.parametrize("text", ["{", '{"type": "record", "name": "R"}', '{"type": "wat"}', ""])
def test_a_malformed_file_is_named_with_the_reason(catalog: SchemaCatalog, text: str) -> None:
    (catalog.folder / "t.avsc").write_text(text)
    with pytest.raises(ConfigError, match=r"t\.avsc is no valid Avro schema: .+"):
        catalog.for_topic("t", None)


def test_a_missing_file_is_named(catalog: SchemaCatalog) -> None:
    with pytest.raises(ConfigError, match=r"gone\.avsc cannot be read"):
        catalog.for_topic("t", "gone.avsc")


def test_topics_register_under_their_value_subject(catalog: SchemaCatalog) -> None:
    assert catalog.register("t", A) == catalog.register("t", A) == 1
    assert catalog.registry.subjects() == ["t-value"]
