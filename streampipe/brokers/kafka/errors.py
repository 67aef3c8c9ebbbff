"""librdkafka's errors as streampipe's, by what the caller has to do about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

from streampipe.brokers.kafka.settings import KafkaSettings
from streampipe.errors import ConfigError, Fenced, StreampipeError, TransactionAborted, Unavailable, UnknownTopic

T = TypeVar("T")

MEMBERSHIP_OVER = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.FENCED_MEMBER_EPOCH,
}
PRODUCER_OVER = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
UNKNOWN_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
CREDENTIALS = {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL}
FORBIDDEN = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
UNREACHABLE = {
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._MSG_TIMED_OUT,
    KafkaError.REQUEST_TIMED_OUT,
}
STALE_LEADER = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}
"""What librdkafka knows of a partition's leader is out of date, as after a broker restarted. It calls none of these
retriable; asking for the metadata, then once more, is."""
TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}


def kafka_error(exception: BaseException) -> KafkaError | None:
    """The KafkaError inside an exception, if there is one."""
    first = exception.args[0] if exception.args else None
    return first if isinstance(exception, KafkaException) and isinstance(first, KafkaError) else None


class Translator:
    """Turns librdkafka's errors into streampipe's for one broker; `name` is its redacted address."""

    def __init__(self, name: str, settings: KafkaSettings) -> None:
        self.name, self._settings = name, settings

    def unreachable(self, detail: str) -> Unavailable:
        """The broker does not answer."""
        return Unavailable(
            f"broker {self.name} cannot be reached; check the address and that it is running ({self.clean(detail)})"
        )

    def clean(self, detail: object) -> str:
        """One line without secrets."""
        return self._settings.redact(" ".join(str(detail).split()))

    def of(self, error: KafkaError, doing: str, topic: str | None = None) -> StreampipeError:
        """What `error` means for whoever was `doing` something."""
        code, what = error.code(), f"{doing} on broker {self.name}: {self.clean(error.str())}"
        if code in PRODUCER_OVER or code in MEMBERSHIP_OVER:
            return Fenced(f"{what}; another producer or group member took over")
        if code in CREDENTIALS:
            return Unavailable(f"{what}; check the kafka sasl.* and ssl.* settings")
        if code in FORBIDDEN:
            return ConfigError(f"{what}; grant the ACL to this client")
        if code in UNKNOWN_TOPIC and topic is not None:
            return UnknownTopic(topic)
        if code in TOO_LARGE:
            return TransactionAborted(f"{what}; raise max.message.bytes of the topic and message.max.bytes")
        if code in STALE_LEADER:
            return Unavailable(f"{what}; the leader of a partition changes, try again")
        if code in UNREACHABLE:
            return self.unreachable(f"{doing}: {error.str()}")
        if error.fatal():
            return Fenced(f"{what}; open another client")
        if error.txn_requires_abort():
            return TransactionAborted(f"{what}; rewind to the committed offsets")
        if error.retriable():
            return Unavailable(f"{what}; try again")
        if code in {KafkaError._INVALID_ARG, KafkaError.INVALID_CONFIG, KafkaError.POLICY_VIOLATION}:
            return ConfigError(what)
        return StreampipeError(what)

    def call(self, doing: str, function: Callable[[], T], topic: str | None = None) -> T:
        """Call `function`, its KafkaException translated."""
        try:
            return function()
        except KafkaException as exception:
            error = kafka_error(exception)
            if error is None:
                raise Unavailable(f"{doing} on broker {self.name}: {self.clean(exception)}") from None
            raise self.of(error, doing, topic) from None

    def open(self, make: Callable[[], T]) -> T:
        """Create a client; a setting it refuses is a ConfigError."""
        try:
            return make()
        except (KafkaException, TypeError, ValueError) as exception:
            error = kafka_error(exception)
            detail = error.str() if error is not None else exception
            raise ConfigError(f"kafka settings for broker {self.name}: {self.clean(detail)}") from None
