"""Hypothesis strategies for Avro: record schemas as JSON, and physical values of them (`streampipe.schemas.types`)."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import strategies as st

from streampipe.schemas.avro import parse
from streampipe.schemas.model import Type

PRIMITIVES = ("boolean", "int", "long", "float", "double", "string")
LOGICALS = (
    ("int", "date"), ("long", "timestamp-millis"), ("long", "timestamp-micros"), ("long", "local-timestamp-millis"),
    ("int", "time-millis"), ("long", "time-micros"), ("string", "uuid"),
)  # fmt: skip
_TIME_LIMITS = {"time-millis": 86_400_000, "time-micros": 86_400_000_000}


class _Schemas:
    """Draws types; names are counted, since a name may be defined once."""

    def __init__(self, draw: st.DrawFn, *, row_types: bool) -> None:
        self.draw, self.row_types, self.count = draw, row_types, 0

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def record(self, depth: int) -> dict[str, Any]:
        fields = [{"name": self.name("f"), "type": self.type(depth)} for _ in range(self.draw(st.integers(1, 4)))]
        return {"type": "record", "name": self.name("R"), "fields": fields}

    def type(self, depth: int, *, in_union: bool = False) -> Any:
        kinds = ["primitive", "primitive", "logical", "enum"]
        kinds += ["bytes", "fixed", "decimal"] if self.row_types else []
        kinds += ["array", "map", "record"] if depth > 0 else []
        kinds += [] if in_union else ["nullable", "nullable", "union", "null"]
        return getattr(self, f"_{self.draw(st.sampled_from(kinds))}")(depth)

    def _primitive(self, depth: int) -> str:
        return self.draw(st.sampled_from(PRIMITIVES))

    def _null(self, depth: int) -> str:
        return "null"

    def _bytes(self, depth: int) -> str:
        return "bytes"

    def _logical(self, depth: int) -> dict[str, Any]:
        kind, logical = self.draw(st.sampled_from(LOGICALS))
        return {"type": kind, "logicalType": logical}

    def _decimal(self, depth: int) -> dict[str, Any]:
        precision = self.draw(st.integers(1, 45))
        scale = self.draw(st.integers(0, precision))
        return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}

    def _enum(self, depth: int) -> dict[str, Any]:
        return {"type": "enum", "name": self.name("E"), "symbols": list("ABC"[: self.draw(st.integers(1, 3))])}

    def _fixed(self, depth: int) -> dict[str, Any]:
        return {"type": "fixed", "name": self.name("X"), "size": self.draw(st.integers(1, 8))}

    def _array(self, depth: int) -> dict[str, Any]:
        return {"type": "array", "items": self.type(depth - 1)}

    def _map(self, depth: int) -> dict[str, Any]:
        return {"type": "map", "values": self.type(depth - 1)}

    def _record(self, depth: int) -> dict[str, Any]:
        return self.record(depth - 1)

    def _nullable(self, depth: int) -> list[Any]:
        made = ["null", self.type(depth, in_union=True)]
        return made if self.draw(st.booleans()) else made[::-1]

    def _union(self, depth: int) -> list[Any]:
        branches, seen = [], set()
        for _ in range(self.draw(st.integers(2, 4))):
            branch = "null" if self.draw(st.integers(0, 4)) == 0 else self.type(depth, in_union=True)
            kind = branch if isinstance(branch, str) else branch.get("name", branch["type"])
            if kind not in seen:
                seen.add(kind)
                branches.append(branch)
        return branches


@st.composite
def schemas(draw: st.DrawFn, *, row_types: bool = True, depth: int = 2) -> str:
    """Record schemas; without `row_types` (bytes, fixed, decimal) most of them can run columnar."""
    return orjson.dumps(_Schemas(draw, row_types=row_types).record(depth)).decode()


def values(node: Type) -> st.SearchStrategy[Any]:
    """Physical values of a type: a general union as a dictionary of its one member, a map as pairs."""
    if node.kind == "record":
        return st.fixed_dictionaries({f.name: values(f.type) for f in node.fields})
    if node.kind == "array":
        return st.lists(values(node.child), max_size=3)
    if node.kind == "map":
        return st.dictionaries(st.text(max_size=3), values(node.child), max_size=3).map(lambda d: list(d.items()))
    if node.kind == "union":
        return st.one_of([_branch(node, branch) for branch in node.branches])
    return _scalars(node)


def _branch(union: Type, branch: Type) -> st.SearchStrategy[Any]:
    if branch.kind == "null" or union.nullable is not None:
        return values(branch)
    return values(branch).map(lambda value: {branch.label: value})


def _scalars(node: Type) -> st.SearchStrategy[Any]:
    if node.logical in _TIME_LIMITS:
        return st.integers(0, _TIME_LIMITS[node.logical] - 1)
    if node.logical == "decimal":
        limit = 10 ** node.attributes["precision"] - 1
        return st.integers(-limit, limit).map(lambda n: n.to_bytes(n.bit_length() // 8 + 1, "big", signed=True))
    by_kind: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "boolean": st.booleans(),
        "int": st.integers(-(2**31), 2**31 - 1),
        "long": st.integers(-(2**63), 2**63 - 1),
        "float": st.floats(width=32, allow_nan=False),
        "double": st.floats(allow_nan=False),
        "string": st.text(max_size=5),
        "bytes": st.binary(max_size=5),
        "fixed": st.binary(min_size=node.size, max_size=node.size),
        "enum": st.sampled_from(node.symbols or ("",)),
    }
    return by_kind[node.kind]


@st.composite
def schemas_with_values(
    draw: st.DrawFn, *, row_types: bool = True, max_size: int = 5
) -> tuple[str, list[dict[str, Any]]]:
    """A record schema and physical values of it."""
    text = draw(schemas(row_types=row_types))
    return text, draw(st.lists(values(parse(text)), min_size=1, max_size=max_size))
