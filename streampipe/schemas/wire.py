"""The same bytes in simpler words: schemas for the codecs, in which nothing is left that they disagree about.

Logical types, defaults and aliases do not change how a record is written, so the codecs never see them.
"""

from __future__ import annotations

from typing import Any

from streampipe.schemas.model import Type

WRAPPER = "streampipe.wire.Branch"


def plain(node: Type, *, wide: bool = False) -> Any:
    """Schema of these bytes; `wide` reads every int as a long, so that one beyond 32 bits shows.

    (An int and a long are the same bytes. pyruhvro cuts an int that is too long instead of refusing it.)
    """
    return _Writer(wide=wide, wrap=False).write(node)


def wrapped(node: Type) -> Any:
    """Schema of these bytes in which a branch of a general union is a record with that one field.

    A record adds no bytes. So fastavro's value of `["int", "string"]` says which branch it was: {"int": 5}.
    """
    return _Writer(wide=False, wrap=True).write(node)


def wrapper_name(union: Type, branch: Type) -> str:
    """Name of the record around a branch in `wrapped`; the same branch of the same union has the same one."""
    return f"{WRAPPER}{id(union):x}_{union.branches.index(branch)}"


class _Writer:
    def __init__(self, *, wide: bool, wrap: bool) -> None:
        self._wide, self._wrap = wide, wrap
        self._seen: set[str] = set()

    def write(self, node: Type) -> Any:
        if node.kind == "union":
            general = self._wrap and node.nullable is None
            return [self._branch(node, b) if general else self.write(b) for b in node.branches]
        if node.kind == "array":
            return {"type": "array", "items": self.write(node.child)}
        if node.kind == "map":
            return {"type": "map", "values": self.write(node.child)}
        if not node.name:
            return "long" if self._wide and node.kind == "int" else node.kind
        return self._named(node)

    def _named(self, node: Type) -> Any:
        # An empty namespace keeps a name without dots from inheriting that of an enclosing type.
        if node.name in self._seen:
            return node.name
        self._seen.add(node.name)
        space, _, name = node.name.rpartition(".")
        made: dict[str, Any] = {"type": node.kind, "name": name, "namespace": space}
        if node.kind == "enum":
            made["symbols"] = list(node.symbols)
        elif node.kind == "fixed":
            made["size"] = node.size
        else:
            made["fields"] = [{"name": f.name, "type": self.write(f.type)} for f in node.fields]
        return made

    def _branch(self, union: Type, branch: Type) -> Any:
        if branch.kind == "null":
            return "null"
        name = wrapper_name(union, branch)
        if name in self._seen:
            return name
        self._seen.add(name)
        return {"type": "record", "name": name, "fields": [{"name": branch.label, "type": self.write(branch)}]}
