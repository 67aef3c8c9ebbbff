"""From the address of a broker to the broker. Only the implementation that is asked for is imported."""

from __future__ import annotations

from collections.abc import Mapping

from streampipe.brokers.port import Broker
from streampipe.errors import ConfigError


def open_broker(
    address: str, settings: Mapping[str, str] | None = None, *, transaction_timeout_ms: int = 15_000
) -> Broker:
    """The broker at `local:PATH` or `kafka:HOST:PORT[,HOST:PORT]`; `settings` are librdkafka's, for Kafka alone.

    Raises ConfigError for any other address. A Kafka that cannot be reached shows at the first call, not here.
    """
    kind, _, rest = address.partition(":")
    if kind == "local" and rest:
        from streampipe.brokers.local import LocalBroker

        return LocalBroker(rest, transaction_timeout_s=transaction_timeout_ms / 1000)
    if kind == "kafka" and rest and all(_is_host_and_port(part) for part in rest.split(",")):
        from streampipe.brokers.kafka import KafkaBroker

        timeout = {"transaction.timeout.ms": str(transaction_timeout_ms)}
        return KafkaBroker(rest, {**timeout, **(settings or {})})
    raise ConfigError(f"broker {address!r} is neither local:PATH nor kafka:HOST:PORT[,HOST:PORT]")


def _is_host_and_port(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 65_536
