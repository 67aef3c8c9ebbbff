"""Collects the nodes of a topology while it is described, and gives them names that stay."""

from __future__ import annotations

import re
from collections import Counter

from streampipe.errors import TopologyError
from streampipe.topology.nodes import Key, Node

Columns = str | tuple[str, ...]
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")


class Builder:
    """The nodes so far of the processor named `app_id`, in the order in which they were described."""

    def __init__(self, app_id: str) -> None:
        self.app_id = app_id
        self.nodes: list[Node] = []
        self._counts: Counter[str] = Counter()

    def add(self, node: Node) -> Node:
        """Add a node, its inputs being there already."""
        self.nodes.append(node)
        return node

    def unique(self, base: str, *, counted: bool = False) -> str:
        """A name that no node has: `base`, with a number behind it where needed or `counted`."""
        self._counts[base] += 1
        n = self._counts[base]
        name = f"{base}-{n}" if counted or n > 1 else base
        return name if all(node.name != name for node in self.nodes) else self.unique(base, counted=True)

    def changelog(self, name: str) -> str:
        """Topic that the state of the node of this name is read back from."""
        return f"{self.app_id}-{name}-changelog"

    def named(self, name: str | None, kind: str) -> str:
        """The name given, else the kind with a number. Raises TopologyError for a name that is taken or no name."""
        if name is None:
            return self.unique(kind, counted=True)
        if any(node.name == checked_name(name, "node") for node in self.nodes):
            raise TopologyError(f"processor {self.app_id!r} has two nodes named {name!r}")
        return name


def key_of(columns: Columns | None) -> Key | None:
    """Key columns, one or several, as a tuple."""
    if columns is None:
        return None
    return (columns,) if isinstance(columns, str) else tuple(columns)


def checked_name(name: str, what: str) -> str:
    """The name if Kafka takes it as part of a topic's. Raises TopologyError."""
    if not _NAME.fullmatch(name) or name in {".", ".."}:
        raise TopologyError(f"{what} name {name!r}: use 1 to 200 of letters, digits, '.', '_' and '-'")
    return name
