"""For tests: `TopologyTestDriver` runs a processor in memory; `stack` starts a real Kafka and schema registry."""

from streampipe.testing.driver import TopologyTestDriver
from streampipe.testing.golden import assert_golden
from streampipe.testing.topics import Output

__all__ = ["Output", "TopologyTestDriver", "assert_golden"]
