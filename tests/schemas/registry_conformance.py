"""What every registry must do; each implementation runs this suite with its own `registry` fixture."""

from __future__ import annotations

import uuid

import orjson
import pytest

from streampipe.errors import ConfigError, UnknownSchema, UnknownSubject
from streampipe.schemas.avro import parse
from streampipe.schemas.port import Registry
from streampipe.schemas.types import schema_of


def record(*fields: tuple[str, object] | tuple[str, object, object], name: str = "R") -> str:
    made = [dict(zip(("name", "type", "default"), field, strict=False)) for field in fields]
    return orjson.dumps({"type": "record", "name": name, "fields": made}).decode()


class RegistryConformance:
    """Inherit it and define a fixture `registry`; subjects are fresh ones, so it may be shared."""

    @pytest.fixture
    def subject(self) -> str:
        return f"subject/with & signs-{uuid.uuid4()}-value"

    def test_a_registered_schema_is_found_by_id_subject_and_version(self, registry: Registry, subject: str) -> None:
        text = record(("a", "int"), name=f"R{uuid.uuid4().hex}")
        schema_id = registry.register(subject, text)
        assert schema_id > 0
        assert schema_of(parse(registry.by_id(schema_id))) == schema_of(parse(text))
        latest = registry.latest(subject)
        assert (latest.subject, latest.version, latest.id) == (subject, 1, schema_id)
        assert registry.version(subject, 1).id == schema_id
        assert subject in registry.subjects()
        assert registry.subjects() == sorted(registry.subjects())

    def test_registering_again_is_the_same_id_and_no_new_version(self, registry: Registry, subject: str) -> None:
        first = registry.register(subject, record(("a", "int")))
        assert registry.register(subject, record(("a", "int"))) == first
        assert registry.latest(subject).version == 1

    def test_versions_count_within_the_subject(self, registry: Registry, subject: str) -> None:
        first = registry.register(subject, record(("a", "int")))
        second = registry.register(subject, record(("a", "int"), ("b", "int", 7)))
        assert second != first
        assert registry.latest(subject).version == 2
        assert registry.latest(subject).id == second
        assert registry.version(subject, 1).id == first

    def test_the_same_schema_in_two_subjects_has_one_id(self, registry: Registry, subject: str) -> None:
        text = record(("a", "int"), name=f"R{uuid.uuid4().hex}")
        assert registry.register(subject, text) == registry.register(f"{subject}-2", text)

    def test_what_is_not_there_is_unknown(self, registry: Registry, subject: str) -> None:
        with pytest.raises(UnknownSchema):
            registry.by_id(2_000_000_000)
        with pytest.raises(UnknownSubject):
            registry.latest(subject)
        with pytest.raises(UnknownSubject):
            registry.version(subject, 1)
        registry.register(subject, record(("a", "int")))
        with pytest.raises(UnknownSubject):
            registry.version(subject, 2)

    @pytest.mark.parametrize("text", ["", "{", '{"type": "record"}', '{"type": "wat"}'])
    def test_what_is_no_schema_is_a_config_error(self, registry: Registry, subject: str, text: str) -> None:
        with pytest.raises(ConfigError):
            registry.register(subject, text)
        assert subject not in registry.subjects()

    def test_a_new_subject_takes_anything(self, registry: Registry, subject: str) -> None:
        assert registry.incompatibilities(subject, record(("a", "int"))) == []
