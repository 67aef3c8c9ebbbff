"""Opens clients of one Kafka cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from streampipe.brokers.kafka.admin import KafkaAdmin
from streampipe.brokers.kafka.consumer import KafkaConsumer
from streampipe.brokers.kafka.errors import Translator
from streampipe.brokers.kafka.producer import KafkaProducer
from streampipe.brokers.kafka.reader import KafkaReader, MakeConsumer, log_connection
from streampipe.brokers.kafka.settings import REQUEST_TIMEOUT_S, KafkaSettings, log
from streampipe.brokers.port import Isolation, Offsets

_COOPERATIVE = {"partition.assignment.strategy": "cooperative-sticky"}
_CLASSIC_RANGE = {"partition.assignment.strategy": "range"}
_BROKER_RANGE = {"group.protocol": "consumer", "group.remote.assignor": "range"}


class KafkaBroker:
    """The Kafka at `address` (host:port, several separated by commas); `settings` are librdkafka's, for every client.

    Raises ConfigError for settings that correctness or security depends on. Opening a client raises Unavailable
    within about ten seconds when nobody answers.
    """

    def __init__(self, address: str, settings: Mapping[str, str] | None = None) -> None:
        self._settings = KafkaSettings(address, dict(settings or {}))
        self.name = f"kafka:{address}"
        self._errors = Translator(self.name, self._settings)
        self._range: dict[str, str] | None = None

    def consumer(
        self,
        group: str,
        *,
        reset: Literal["earliest", "latest"] = "earliest",
        co_partitioned: bool = False,
        client_id: str = "",
    ) -> KafkaConsumer:
        """A member of `group`; several inputs need `co_partitioned`, since sticky assignors split their pairs."""
        rules = self._settings.sharing(self._range_protocol() if co_partitioned else _COOPERATIVE)
        conf = self._settings.group(group, reset, rules, client_id)
        eager = "cooperative-sticky" not in conf.get("partition.assignment.strategy", "cooperative-sticky")
        return KafkaConsumer(_consumer(conf), self._errors, reset=reset, eager=eager)

    def reader(self, offsets: Offsets, isolation: Isolation = "read_committed") -> KafkaReader:
        """A reader from these offsets on. Raises UnknownTopic, Unavailable."""
        conf = self._settings.reader(isolation)
        return KafkaReader(_consumer(conf), self._errors, offsets)

    def producer(self, transactional_id: str | None = None) -> KafkaProducer:
        """A producer; with an id it fences the last holder. Raises Unavailable."""
        conf = self._settings.producer(transactional_id)
        return KafkaProducer(
            lambda on_delivery: Producer(conf | {"on_delivery": on_delivery, "error_cb": self._log}),
            self._errors,
            transactional=transactional_id is not None,
            timeout_s=self._settings.transaction_timeout_s,
        )

    def admin(self) -> KafkaAdmin:
        """An admin client."""
        conf = {"error_cb": self._log}
        return KafkaAdmin(
            lambda: AdminClient(self._settings.client() | conf),
            self._errors,
            lambda group: Consumer(self._settings.reader("read_uncommitted") | conf | {"group.id": group}),
        )

    def _log(self, error: KafkaError) -> None:
        log_connection(error, self._errors)

    def _range_protocol(self) -> dict[str, str]:
        """The broker's own range assignor (KIP-848) where it has it: sticky, and it does not stop the world."""
        if self._range is None:
            self._range = _BROKER_RANGE if self._broker_assigns_ranges() else _CLASSIC_RANGE
        return self._range

    def _broker_assigns_ranges(self) -> bool:
        client = self._errors.open(lambda: AdminClient(self._settings.client() | {"error_cb": self._log}))
        listed = self._errors.call("looking up brokers", lambda: client.list_topics(timeout=REQUEST_TIMEOUT_S))
        resource = ConfigResource(ResourceType.BROKER, str(next(iter(listed.brokers))))
        futures = client.describe_configs([resource], request_timeout=REQUEST_TIMEOUT_S)
        try:
            config = futures[resource].result(REQUEST_TIMEOUT_S)
        except (KafkaException, TimeoutError) as exception:
            log.info(
                "the broker does not tell its assignors, so classic range it is (%s)", self._errors.clean(exception)
            )
            return False
        protocols = config.get("group.coordinator.rebalance.protocols")
        assignors = config.get("group.consumer.assignors")
        offered = protocols is None or "consumer" in protocols.value
        return offered and assignors is not None and "range" in assignors.value


def _consumer(conf: dict[str, Any]) -> MakeConsumer:
    return lambda on_error: Consumer(conf | {"error_cb": on_error})
