"""Job (d): a Python function, record by record."""

from benchmarks.events import ALERT, alert
from benchmarks.setup import setup_of_this_process
from streampipe import Processor

setup = setup_of_this_process()
processor = Processor(setup.group)

processor.source(setup.flights).handle(alert, to=setup.output, schema=ALERT)
