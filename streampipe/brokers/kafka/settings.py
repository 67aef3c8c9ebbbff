"""librdkafka settings: what streampipe decides, what it recommends, what a deployment may say, what it must not."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streampipe.errors import ConfigError

log = logging.getLogger("streampipe.brokers.kafka")
log.addHandler(logging.NullHandler())  # without any handler Python would print librdkafka's lines on stderr


def _worth_a_line(record: logging.LogRecord) -> bool:
    """Nothing about settings that a kind of client ignores; and what librdkafka repairs by itself is no warning."""
    line = record.getMessage()
    if "property and will be ignored by this" in line:
        return False
    if record.levelno == logging.WARNING and ("retrying" in line or line.startswith("GETPID ")):
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        return log.isEnabledFor(logging.INFO)
    return True


log.addFilter(_worth_a_line)

REQUEST_TIMEOUT_S = 10.0
"""How long one request to the broker may take before it counts as unreachable."""

_OWNED = {
    "bootstrap.servers": "it is the broker's address",
    "metadata.broker.list": "it is the broker's address",
    "group.id": "the processor's name decides it",
    "transactional.id": "the worker's slot decides it",
    "enable.auto.commit": "offsets are committed with the results",
    "enable.auto.offset.store": "offsets are committed with the results",
    "auto.offset.reset": "the consumer's reset decides it",
    "isolation.level": "uncommitted records must never be processed",
    "enable.idempotence": "retries must not duplicate records",
    "enable.partition.eof": "positions depend on it",
    "delivery.report.only.error": "lost records are found by it",
    "partitioner": "keys are placed by CRC-32 on every broker",
    "allow.auto.create.topics": "an unknown topic is an error",
}
_DANGEROUS = {"plugin.library.paths", "ssl.engine.location", "sasl.kerberos.kinit.cmd", "ssl.providers"}
"""Keys that load code into the process or run a shell."""
_SECRET = re.compile(r"password|secret|\.pem$|\.key$|private\.key|sasl\.username|oauthbearer\.config")
_SHARING = ("group.protocol", "group.remote.assignor", "partition.assignment.strategy")
_CLASSIC_ONLY = {"session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type"}
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):\d{1,5}")

_CONSUMER: dict[str, object] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,  # a position must move past trailing control records
    # librdkafka's default of 1,000 ms stops a partition for a second whenever its queue is full.
    "fetch.queue.backoff.ms": 1,
    "fetch.wait.max.ms": 20,
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 131_072,
}
# With the default, a client that lost every broker forgets them and asks the bootstrap addresses anew (KIP-899); what
# asks a coordinator it knew then waits for a broker that is not there any more: offsets of transactions, descriptions
# of groups (librdkafka issue 5511).
# Nor may clients come back too soon: a broker that has just started may say that there are no brokers (see
# `reader.Polling`), which the back-off of up to ten seconds makes rare.
_CLIENT: dict[str, object] = {"metadata.recovery.strategy": "none"}
_CLASSIC: dict[str, object] = {"session.timeout.ms": 10_000, "heartbeat.interval.ms": 1_000}
_PRODUCER: dict[str, object] = {
    "enable.idempotence": True,
    "delivery.report.only.error": True,
    "linger.ms": 10,
    "batch.num.messages": 10_000,
    "batch.size": 1_000_000,
    "queue.buffering.max.messages": 500_000,
    "queue.buffering.max.kbytes": 524_288,
}
_TRANSACTION_TIMEOUT_MS = "15000"


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Address and librdkafka settings of one deployment, checked; raises ConfigError naming the key."""

    address: str
    given: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not all(_ADDRESS.fullmatch(part) for part in self.address.split(",")):
            raise ConfigError("broker address: expected kafka:host:port[,host:port...], without user or path")
        for key in self.given:
            if key in _DANGEROUS:
                raise ConfigError(f"kafka setting {key} is refused: it loads code or runs a command; remove it")
            if key in _OWNED:
                raise ConfigError(f"kafka setting {key} is not yours to set: {_OWNED[key]}; remove it")

    @property
    def transaction_timeout_s(self) -> float:
        """How long a transaction may stay open."""
        given = self.given.get("transaction.timeout.ms", _TRANSACTION_TIMEOUT_MS)
        if not given.isdigit():
            raise ConfigError(f"kafka setting transaction.timeout.ms: {given!r} is not a number of milliseconds")
        return int(given) / 1000

    def _connection(self) -> dict[str, Any]:
        return _CLIENT | {"bootstrap.servers": self.address, "logger": log}

    def client(self) -> dict[str, Any]:
        """A client that neither consumes nor produces."""
        return self._connection() | dict(self.given)

    def sharing(self, recommended: Mapping[str, str]) -> dict[str, str]:
        """How a group shares partitions: what is recommended, unless the deployment chose a protocol or assignor."""
        chosen = {key: self.given[key] for key in _SHARING if key in self.given}
        if chosen.get("group.protocol") == "consumer":
            assignor = recommended.get("partition.assignment.strategy", recommended.get("group.remote.assignor"))
            return ({"group.remote.assignor": "range"} if assignor == "range" else {}) | chosen
        if chosen.get("group.protocol") == "classic" and "group.remote.assignor" in recommended:
            return {"partition.assignment.strategy": "range"} | chosen
        return {**recommended} | chosen

    def group(self, group: str, reset: str, sharing: Mapping[str, str], client_id: str) -> dict[str, Any]:
        """A member of a group; `sharing` comes from the method of that name."""
        on_broker = sharing.get("group.protocol") == "consumer"
        given = _without(self.given, {*_SHARING, *(_CLASSIC_ONLY if on_broker else ())})
        own = {"group.id": group, "auto.offset.reset": reset, "isolation.level": "read_committed"}
        named = {"client.id": client_id} if client_id else {}
        return _CONSUMER | ({} if on_broker else _CLASSIC) | self._connection() | given | dict(sharing) | own | named

    def reader(self, isolation: str) -> dict[str, Any]:
        """A reader outside any group; librdkafka wants a group's name nevertheless."""
        own = {"group.id": "streampipe-reader", "isolation.level": isolation, "auto.offset.reset": "error"}
        given = _without(self.given, {*_SHARING, "group.instance.id"})
        return _CONSUMER | self._connection() | given | own

    def producer(self, transactional_id: str | None) -> dict[str, Any]:
        """A producer, transactional with an id."""
        own = {"transactional.id": transactional_id, "transaction.timeout.ms": _TRANSACTION_TIMEOUT_MS}
        return _PRODUCER | (own if transactional_id else {}) | self.client()

    def redact(self, text: str) -> str:
        """`text` without the values of secret settings, for messages and logs."""
        for key, value in self.given.items():
            if value and _SECRET.search(key):
                text = text.replace(value, "***")
        return text


def _without(given: Mapping[str, str], dropped: Iterable[str]) -> dict[str, str]:
    gone = set(dropped)
    for key in given.keys() & gone & _CLASSIC_ONLY:
        log.warning("kafka setting %s is left out: the consumer group protocol decides it on the broker", key)
    return {key: value for key, value in given.items() if key not in gone}
