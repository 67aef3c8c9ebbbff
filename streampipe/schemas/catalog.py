"""Which schema the values of a topic have: said explicitly, a file of the schemas folder, or the registry's latest."""

from __future__ import annotations

from pathlib import Path

from streampipe.errors import ConfigError
from streampipe.schemas.avro import parse
from streampipe.schemas.model import SchemaError
from streampipe.schemas.port import Registry


def subject_of(topic: str) -> str:
    """Subject of a topic's values: Confluent's TopicNameStrategy."""
    return f"{topic}-value"


class SchemaCatalog:
    """Finds and registers schemas of topics. `folder` need not exist."""

    def __init__(self, registry: Registry, folder: str | Path) -> None:
        self.registry = registry
        self.folder = Path(folder)

    def for_topic(self, topic: str, explicit: str | None = None) -> str:
        """Schema text of a topic's values.

        `explicit` is a path to an .avsc file, or JSON text; without it the file <topic>.avsc of the folder counts,
        else the latest version of the subject. Raises ConfigError for a missing or malformed file, naming it,
        UnknownSubject when nobody knows the topic, and Unavailable.
        """
        if explicit is not None:
            if explicit.lstrip().startswith(("{", "[", '"')):
                return _checked(explicit, f"the schema given for topic {topic!r}")
            return _read(Path(explicit))
        path = self.folder / f"{topic}.avsc"
        if path.is_file():
            return _read(path)
        return self.registry.latest(subject_of(topic)).text

    def register(self, topic: str, text: str) -> int:
        """Register the schema of a topic's values and return its id. Raises as `Registry.register` does."""
        return self.registry.register(subject_of(topic), text)


def _read(path: Path) -> str:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise ConfigError(f"schema file {path} cannot be read: {reason}") from None
    return _checked(text, f"schema file {path}")


def _checked(text: str, where: str) -> str:
    try:
        parse(text)
    except SchemaError as e:
        raise ConfigError(f"{where} is no valid Avro schema: {e}") from None
    return text
