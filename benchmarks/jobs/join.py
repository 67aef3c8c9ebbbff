"""Job (b): join with a global table."""

from benchmarks.events import NAMED
from benchmarks.setup import setup_of_this_process
from streampipe import Processor

setup = setup_of_this_process()
processor = Processor(setup.group)

airlines = processor.global_table(setup.airlines, key="carrier")

(
    processor.source(setup.flights)
    .join(airlines, on="carrier")
    .select("origin", "dest", "carrier", "flight", "dep_delay", "name")
    .to(setup.output, schema=NAMED)
)
