"""Settings: where they come from (flags, environment, streampipe.toml, defaults) and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from streampipe.policies import Guarantee

DEFAULT_BROKER = "local:.streampipe/broker.db"
DEFAULT_REGISTRY = "local:.streampipe/registry.db"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about a deployment that is not in the processor module. Times in milliseconds unless named."""

    broker: str = DEFAULT_BROKER
    registry: str = DEFAULT_REGISTRY
    schemas: str = "schemas"
    """Folder of .avsc files: <topic>.avsc is the schema of a topic's values."""
    guarantee: Guarantee = "exactly-once"
    batch_size: int = 10_000
    """Records handled at a time, at most."""
    commit_interval_ms: int = 500
    max_poll_wait_ms: int = 100
    transaction_timeout_ms: int = 15_000
    create_topics: bool = True
    """Create missing output, dead-letter and internal topics; input topics must exist."""
    http_host: str = "127.0.0.1"
    http_port: int | None = 9464
    """Port of /metrics, /livez and /readyz of worker 0; worker n uses port + n. None serves nothing."""
    kafka: Mapping[str, str] = field(default_factory=dict)
    """librdkafka settings passed to every client."""
    registry_options: Mapping[str, str] = field(default_factory=dict)
    """Settings of the registry client, Confluent's names."""
