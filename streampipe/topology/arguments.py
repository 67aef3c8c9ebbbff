"""What arguments of streams and tables may be."""

from __future__ import annotations

from typing import get_args

from streampipe.errors import TopologyError
from streampipe.policies import EmitPolicy
from streampipe.topology.nodes import Node
from streampipe.windows import Duration, milliseconds


def one_of(what: str, given: str, kind: object) -> None:
    """Raise TopologyError unless it is among the literals of `kind`."""
    if given not in get_args(kind):
        raise TopologyError(f"{what}={given!r}: use one of {', '.join(map(repr, get_args(kind)))}")


def idle_after_ms(idle_after: Duration | None, emit: EmitPolicy) -> int | None:
    """How long a partition must be silent, in ms; None: for ever. Raises TopologyError for a negative time."""
    if idle_after is None:
        return milliseconds("30s") if emit == "final" else None
    after_ms = None if idle_after == "never" else milliseconds(idle_after)
    if after_ms is not None and after_ms < 0:
        raise TopologyError(f"window idle_after={idle_after!r}: use a length of time or 'never'")
    return after_ms


def check_keyed(node: Node, what: str) -> None:
    """Raise TopologyError, naming the repair, when nobody knows how the records of a node are keyed."""
    if node.key is None:
        raise TopologyError(
            f"{what} after {node.name!r}: the stream has no known key; call .key_by(column) before it, "
            f"or declare source(..., key=column) if the records are keyed so already"
        )
