"""Avro schemas as a tree with references resolved, and the limits that keep a schema from being a bomb.

Every other module of this room reads this tree instead of JSON. Names are full names. A record that refers to
itself appears as the same object again, so trees of recursive schemas are cyclic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

MAX_DEPTH = 64
"""Levels of nesting, references followed. The parsers and codecs below recurse in C; 50,000 levels crash them."""
MAX_NODES = 20_000
"""Types of a schema, references expanded: records that mention each other twice double at every level."""

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "string", "bytes"})
NAMED = frozenset({"record", "enum", "fixed"})


class SchemaError(ValueError):
    """The text is no valid Avro schema, or one beyond the limits. The message is one line, without the text."""


@dataclass(eq=False, slots=True)
class Field:
    """A field of a record. `default` is JSON and means something only if `has_default`."""

    name: str
    type: Type
    aliases: tuple[str, ...] = ()
    has_default: bool = False
    default: Any = None


@dataclass(eq=False, slots=True)
class Type:
    """A node. `kind` is Avro's type name, or "union"; the fields that a kind does not have stay empty."""

    kind: str
    name: str = ""
    logical: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    aliases: frozenset[str] = frozenset()
    fields: list[Field] = field(default_factory=list)
    branches: list[Type] = field(default_factory=list)
    items: Type | None = None
    """Element type of an array or map."""
    symbols: tuple[str, ...] = ()
    default_symbol: str | None = None
    size: int = 0

    @property
    def child(self) -> Type:
        """Element type of an array or map, which always has one."""
        assert self.items is not None
        return self.items

    @property
    def nullable(self) -> Type | None:
        """The other branch of a two-branch union with null; None for everything else."""
        if self.kind != "union" or len(self.branches) != 2:
            return None
        first, second = self.branches
        if (first.kind == "null") == (second.kind == "null"):
            return None
        return second if first.kind == "null" else first

    @property
    def label(self) -> str:
        """Name of this type as a branch of a union: its full name, else its kind."""
        return self.name or self.kind


def parse_tree(text: str) -> Type:
    """Build the tree of a schema. Raises SchemaError for what is no schema or is beyond the limits."""
    try:
        document = orjson.loads(text)  # refuses deep nesting by an error, not by a crash
    except orjson.JSONDecodeError as e:
        # A bare name is a schema as well, and registries do hand it out unquoted.
        if text.strip() in PRIMITIVES:
            return Type(text.strip())
        raise SchemaError(f"not JSON: {e.msg} at line {e.lineno}") from None
    root = _Builder({}).build(document, "", 0)
    _measure(root, {}, set())
    return root


@dataclass(slots=True)
class _Builder:
    names: dict[str, Type]

    def build(self, node: Any, space: str, depth: int) -> Type:
        if depth > MAX_DEPTH:
            raise SchemaError(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, str):
            return self._reference(node, space)
        if isinstance(node, list):
            return Type("union", branches=self._branches(node, space, depth))
        if not isinstance(node, dict) or "type" not in node:
            raise SchemaError("a type must be a name, a list (union) or an object with a type")
        kind = node["type"]
        if not isinstance(kind, str):
            return self.build(kind, space, depth + 1)
        if kind in NAMED or kind == "error":
            return self._named(node, "record" if kind == "error" else kind, space, depth)
        if kind in ("array", "map"):
            child = self.build(node.get("items" if kind == "array" else "values"), space, depth + 1)
            return Type(kind, items=child)
        base = self._reference(kind, space)
        return base if base.kind not in PRIMITIVES else Type(base.kind, **_logical(node))

    def _reference(self, name: str, space: str) -> Type:
        if name in PRIMITIVES:
            return Type(name)
        found = self.names.get(_full_name(name, space)) or self.names.get(name)
        if found is None:
            raise SchemaError(f"unknown type {name[:100]!r}")
        return found

    def _branches(self, nodes: list[Any], space: str, depth: int) -> list[Type]:
        branches = [self.build(node, space, depth + 1) for node in nodes]
        if not branches:
            raise SchemaError("a union has no branches")
        labels = [branch.label for branch in branches]
        if "union" in labels:
            raise SchemaError("a union directly within a union")
        if len(set(labels)) != len(labels):
            raise SchemaError("a union has the same branch twice")
        return branches

    def _named(self, node: dict[str, Any], kind: str, space: str, depth: int) -> Type:
        name = node.get("name")
        if not isinstance(name, str) or not name:
            raise SchemaError(f"a {kind} has no name")
        full = _full_name(name, node.get("namespace", space))
        if full in self.names:
            raise SchemaError(f"type {full[:100]!r} is defined twice")
        space = full.rpartition(".")[0]
        aliases = frozenset(_full_name(alias, space) for alias in _strings(node.get("aliases", []), "aliases"))
        made = self.names[full] = Type(kind, full, aliases=aliases, **_logical(node))
        if kind == "record":
            if not isinstance(node.get("fields"), list):
                raise SchemaError(f"record {full!r} has no list of fields")
            made.fields = [self._field(entry, full, space, depth) for entry in node["fields"]]
            if len({f.name for f in made.fields}) != len(made.fields):
                raise SchemaError(f"record {full!r} has a field twice")
        elif kind == "enum":
            made.symbols = _strings(node.get("symbols"), "symbols")
            made.default_symbol = node.get("default")
            if len(set(made.symbols)) != len(made.symbols):
                raise SchemaError(f"enum {full!r} has a symbol twice")
            if made.default_symbol is not None and made.default_symbol not in made.symbols:
                raise SchemaError(f"the default of enum {full!r} is none of its symbols")
        else:
            made.size = node.get("size", -1)
            if type(made.size) is not int or not 0 <= made.size < 2**31:
                raise SchemaError(f"fixed {full!r} has no valid size")
        return made

    def _field(self, entry: Any, record: str, space: str, depth: int) -> Field:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise SchemaError(f"record {record!r} has a field without a name")
        name = entry["name"]
        if "type" not in entry:
            raise SchemaError(f"field {name!r} of record {record!r} has no type")
        made = self.build(entry["type"], space, depth + 1)
        aliases = _strings(entry.get("aliases", []), "aliases")
        return Field(name, made, aliases, "default" in entry, entry.get("default"))


def _full_name(name: str, space: object) -> str:
    return name if "." in name or not isinstance(space, str) or not space else f"{space}.{name}"


def _strings(value: Any, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise SchemaError(f"{what} must be a list of names")
    return tuple(value)


def _logical(node: dict[str, Any]) -> dict[str, Any]:
    logical = node.get("logicalType")
    if not isinstance(logical, str):
        return {}
    return {"logical": logical, "attributes": {k: node[k] for k in ("precision", "scale") if k in node}}


def _measure(node: Type, sizes: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Depth and number of types below `node`, references expanded, recursion counted once."""
    if id(node) in above:
        return 0, 1
    if id(node) in sizes:
        return sizes[id(node)]
    if len(above) >= MAX_DEPTH:
        raise SchemaError(f"nested deeper than {MAX_DEPTH} levels, references followed")
    below = [_measure(child, sizes, above | {id(node)}) for child in children(node)]
    depth = 1 + max((d for d, _ in below), default=0)
    nodes = 1 + sum(n for _, n in below)
    if depth > MAX_DEPTH:
        raise SchemaError(f"nested deeper than {MAX_DEPTH} levels, references followed")
    if nodes > MAX_NODES:
        raise SchemaError(f"more than {MAX_NODES} types, references expanded")
    sizes[id(node)] = depth, nodes
    return depth, nodes


def children(node: Type) -> list[Type]:
    """The types directly below a node."""
    if node.items is not None:
        return [node.items]
    return [f.type for f in node.fields] or node.branches
