"""Job (c): flights, total and worst delay of an hour, by origin."""

import polars as pl

from benchmarks.events import HOURLY
from benchmarks.setup import setup_of_this_process
from streampipe import Processor, Tumbling, agg

setup = setup_of_this_process()
processor = Processor(setup.group)

(
    processor.source(setup.flights, key="origin")
    .filter(pl.col("dep_delay").is_not_null())
    .window(Tumbling("1h"), emit="updates")
    .agg(flights=agg.count(), total=agg.sum("dep_delay"), worst=agg.max("dep_delay"))
    .to(setup.output, schema=HOURLY)
)
