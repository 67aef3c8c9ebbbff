"""Event pipelines on Kafka in plain Python: columnar, exactly-once, operable by one person."""

from streampipe import aggregates as agg
from streampipe.keyed_state import ListState, MapState, Timer, Timers, ValueState
from streampipe.policies import Fatal, Retry, Retryable, Skip
from streampipe.processor import Processor
from streampipe.streams import Stream, Table
from streampipe.windows import Hopping, Session, Sliding, Tumbling, Update

__all__ = [
    "Fatal", "Hopping", "ListState", "MapState", "Processor", "Retry", "Retryable", "Session", "Skip", "Sliding",
    "Stream", "Table", "Timer", "Timers", "Tumbling", "Update", "ValueState", "agg",
]  # fmt: skip
