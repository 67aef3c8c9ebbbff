"""What aggregates keep for each group, as columns of slots: one slot a group, as a (partition, key, window).

An accumulator owns NumPy arrays indexed by slot, and one object for each slot if its state has no fixed size. What it
gives for rows never depends on how they were cut into batches.
"""

from streampipe.operators.accumulators.base import Accumulator, ObjectAccumulator
from streampipe.operators.accumulators.make import accumulator, check_mergeable

__all__ = ["Accumulator", "ObjectAccumulator", "accumulator", "check_mergeable"]
