"""For tests: `TopologyTestDriver` runs a processor in memory, `simulate` several workers of it with crashes; `stack`
starts a real Kafka and schema registry."""

from streampipe.testing.driver import TopologyTestDriver
from streampipe.testing.golden import assert_golden
from streampipe.testing.simulation import Input, Simulation, simulate
from streampipe.testing.topics import Output

__all__ = ["Input", "Output", "Simulation", "TopologyTestDriver", "assert_golden", "simulate"]
