"""Job (a): filter and derive, Avro to Avro."""

import polars as pl

from benchmarks.events import LATE
from benchmarks.setup import setup_of_this_process
from streampipe import Processor

setup = setup_of_this_process()
processor = Processor(setup.group)

(
    processor.source(setup.flights)
    .filter(pl.col("dep_delay").is_not_null())
    .select("origin", "dest", late=pl.col("dep_delay"))
    .to(setup.output, schema=LATE)
)
