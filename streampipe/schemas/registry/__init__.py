"""Schema registries: `local` (one file) and `confluent` (any registry with the Confluent API)."""

from __future__ import annotations

from collections.abc import Mapping

from streampipe.errors import ConfigError
from streampipe.schemas.port import Registry


def open_registry(address: str, options: Mapping[str, str] | None = None) -> Registry:
    """Open the registry at "local:PATH" or "http(s)://…"; `options` are Confluent's client settings.

    Raises ConfigError for any other address, Unavailable when a file cannot be opened; a URL is not contacted yet.
    """
    scheme, _, path = address.partition(":")
    if scheme == "local" and path:
        from streampipe.schemas.registry.local import LocalRegistry

        return LocalRegistry(path)
    if scheme in ("http", "https"):
        from streampipe.schemas.registry.confluent import ConfluentRegistry

        return ConfluentRegistry(address, options or {})
    raise ConfigError(f"registry address {address[:100]!r} is neither local:PATH nor http://HOST:PORT")
