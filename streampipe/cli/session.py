"""What every command needs: settings, and clients opened when they are first asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import typer

from streampipe import config
from streampipe.brokers.opening import open_broker
from streampipe.brokers.port import Admin, Broker
from streampipe.cli.output import Output
from streampipe.config import Settings
from streampipe.errors import ConfigError, UnknownTopic
from streampipe.schemas.port import Registry


@dataclass(frozen=True, slots=True)
class Session:
    """The global options of one call of the command line."""

    out: Output
    file: str | None = None
    flags: Mapping[str, object] = field(default_factory=dict)
    debug: bool = False

    def settings(self, **flags: object) -> Settings:
        """Settings of this call, with a command's own flags. Raises ConfigError."""
        return config.load(self.file, flags={**self.flags, **flags})

    def arguments(self) -> list[str]:
        """The global options again, for another process of the same command line."""
        given = {"config": self.file, **self.flags}
        options = [text for name, value in given.items() if value is not None for text in (f"--{name}", str(value))]
        return [*options, *(["--debug"] if self.debug else []), *(["--quiet"] if self.out.quiet else [])]

    def broker(self, settings: Settings | None = None) -> Broker:
        """The broker. Raises ConfigError."""
        settings = settings or self.settings()
        return open_broker(settings.broker, settings.kafka, transaction_timeout_ms=settings.transaction_timeout_ms)

    @contextmanager
    def admin(self, broker: Broker | None = None) -> Iterator[Admin]:
        """An admin client for the time of a `with`."""
        admin = (broker or self.broker()).admin()
        try:
            yield admin
        finally:
            admin.close()

    @contextmanager
    def registry(self, settings: Settings | None = None) -> Iterator[Registry]:
        """The schema registry for the time of a `with`."""
        from streampipe.schemas.registry import open_registry

        settings = settings or self.settings()
        registry = open_registry(settings.registry, settings.registry_options)
        try:
            yield registry
        finally:
            registry.close()


def session_of(context: typer.Context) -> Session:
    """The session that the root command made."""
    return cast("Session", context.obj)


def existing_topic(admin: Admin, topic: str) -> int:
    """Partition count of a topic. Raises UnknownTopic."""
    count = admin.topics().get(topic)
    if count is None:
        raise UnknownTopic(topic)
    return count


def readable(path: str) -> Path:
    """The path of a file that is there. Raises ConfigError."""
    found = Path(path)
    if not found.is_file():
        raise ConfigError(f"file {path} does not exist")
    return found
