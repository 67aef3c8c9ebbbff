"""What streampipe costs, measured: the real worker against hand-written loops on one Kafka, in one run."""
