"""For tests: a real Apache Kafka and schema registry on loopback, started and ended by their pids."""
