"""The step of each kind of window."""

from __future__ import annotations

import pyarrow as pa

from streampipe.operators.effects import Effects
from streampipe.operators.windows.aligned import AlignedStep
from streampipe.operators.windows.session import SessionStep
from streampipe.operators.windows.sliding import SlidingStep
from streampipe.operators.windows.windowed import WindowedStep
from streampipe.state.port import Stores
from streampipe.topology.nodes import WindowedAggregate
from streampipe.windows import Session, Sliding


def windowed_step(node: WindowedAggregate, effects: Effects, schema: pa.Schema, stores: Stores) -> WindowedStep:
    """The step of a node. Raises TopologyError for what makes no sense."""
    match node.window:
        case Session():
            return SessionStep(node, effects, schema, stores)
        case Sliding():
            return SlidingStep(node, effects, schema, stores)
        case _:
            return AlignedStep(node, effects, schema, stores)
