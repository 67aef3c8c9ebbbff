"""Event pipelines on Kafka in plain Python: columnar, exactly-once, operable by one person."""
