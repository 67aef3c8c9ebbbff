"""The Broker seam on a real Kafka, by confluent-kafka. Nothing of confluent-kafka leaves this package."""

from streampipe.brokers.kafka.broker import KafkaBroker

__all__ = ["KafkaBroker"]
