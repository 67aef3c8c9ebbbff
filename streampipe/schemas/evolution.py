"""Schema resolution on columns: what was written with one schema, as columns of another.

The rules are those of Apache Avro's Java reader (Resolver, ResolvingGrammarGenerator): an impossible pair is an error
of the records that get there, not of the schema, since the branch of a union may never take them there. Names of
records are not compared, those of enums and fixed are (without namespace); the reader's aliases rename what the
writer wrote first; logical types are ignored, the reader's is a view of the number that was written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from streampipe.schemas import wire
from streampipe.schemas.avro import read_all, row_codec
from streampipe.schemas.coerce import to_physical
from streampipe.schemas.defaults import default_of
from streampipe.schemas.logical import lift
from streampipe.schemas.model import Field, SchemaError, Type, children
from streampipe.schemas.selection import live_rows, merge, repeat, struct_of
from streampipe.schemas.types import accepts_null, column_type, is_reference, members, physical_type

Above = tuple[Type, ...]
Run = Callable[[pa.Array], pa.Array]

_PROMOTIONS = {
    "int": ("long", "float", "double"), "long": ("float", "double"), "float": ("double",),
    "string": ("bytes",), "bytes": ("string",),
}  # fmt: skip


class ResolutionError(ValueError):
    """A value written with one schema has no meaning in the other. The message holds no payload."""


@dataclass(frozen=True, slots=True)
class Step:
    """How a physical array of a writer's type becomes a column of a reader's.

    The array holds live values only: it is null where the writer wrote null. A `leaf` turns null into null, so it
    may run over dead rows as well; an `error` has no result for any value.
    """

    run: Run
    leaf: bool = False
    error: bool = False


def _same(array: pa.Array) -> pa.Array:
    return array


IDENTITY = Step(_same, leaf=True)


def resolve(writer: Type, reader: Type) -> Step:
    """Compile the resolution of two schemas."""
    return _Resolver.of(reader).step(writer, reader, (), ())


def defaults_of(record: Type) -> dict[str, Any]:
    """Defaults of a record's fields as Python values of their columns; fields without one are left out."""
    nothing = pa.array([{}], pa.struct([]))
    made = {}
    for one in record.fields:
        if one.has_default:
            step = resolve(replace(record, fields=[]), replace(record, fields=[one]))
            made[one.name] = step.run(nothing)[0].as_py()[one.name]
    return made


@dataclass(slots=True)
class _Resolver:
    names: dict[str, str] = field(default_factory=dict)
    """The reader's name of a type by its alias."""
    fields: dict[str, dict[str, str]] = field(default_factory=dict)
    """By record of the reader: name of a field by its alias."""

    @classmethod
    def of(cls, reader: Type) -> _Resolver:
        made, seen, todo = cls(), set[int](), [reader]
        while todo:
            node = todo.pop()
            if id(node) not in seen:
                seen.add(id(node))
                made.names.update(dict.fromkeys(node.aliases, node.name))
                if node.fields:
                    made.fields[node.name] = {alias: f.name for f in node.fields for alias in f.aliases}
                todo += children(node)
        return made

    def step(self, writer: Type, reader: Type, w_above: Above, r_above: Above) -> Step:
        if is_reference(writer, w_above):
            return self._reference(writer, reader, r_above)
        kind = column_type(reader, r_above)
        if kind == physical_type(writer, w_above) and wire.plain(writer) == wire.plain(reader):
            return IDENTITY
        if writer.kind == "union":
            return self._writer_union(writer, reader, w_above, r_above)
        if reader.kind == "union":
            at = self._first_match(writer, reader, w_above, r_above)
            if at is None:
                return _error(f"{writer.label} is no branch of the reader's union", kind)
            return _inject(self.step(writer, reader.branches[at], w_above, r_above), reader, at, kind)
        if is_reference(reader, r_above):
            return self._to_reference(writer, reader, w_above)
        if writer.kind != reader.kind:
            return _promotion(writer, reader, kind)
        return self._same_kind(writer, reader, w_above, r_above)

    def _same_kind(self, writer: Type, reader: Type, w_above: Above, r_above: Above) -> Step:
        kind = column_type(reader, r_above)
        if reader.kind == "record":
            return self._record(writer, reader, w_above, r_above)
        if reader.kind in ("array", "map"):
            item = self.step(writer.child, reader.child, w_above, r_above)
            return _list(item, kind) if reader.kind == "array" else _map(item, kind)
        if reader.kind in ("enum", "fixed") and self._short_name(writer) != _short(reader.name):
            return _error(f"{writer.name} is not {reader.name}", kind)
        if reader.kind == "enum":
            return _enum(writer, reader)
        if reader.kind == "fixed" and writer.size != reader.size:
            return _error(f"{reader.name} has {reader.size} bytes, {writer.size} were written", kind)
        return Step(lambda array: lift(array, reader), leaf=True)

    def _record(self, writer: Type, reader: Type, w_above: Above, r_above: Above) -> Step:
        kind = column_type(reader, r_above)
        w_above, r_above = (*w_above, writer), (*r_above, reader)
        index = {self._field_name(writer, f): i for i, f in enumerate(writer.fields)}
        steps: list[tuple[int, Step]] = []
        for wanted in reader.fields:
            at = index.get(wanted.name)
            if at is not None:
                steps.append((at, self.step(writer.fields[at].type, wanted.type, w_above, r_above)))
            elif wanted.has_default:
                steps.append((-1, self._default(wanted, r_above)))
            else:
                return _error(f"field {wanted.name!r} was not written and has no default", kind)

        def run(array: pa.Array) -> pa.Array:
            count = len(array)
            columns = [s.run(array.field(at) if at >= 0 else pa.nulls(count)) for at, s in steps]
            return struct_of(columns, kind, count)

        return Step(run, error=any(s.error for _, s in steps))

    def _default(self, wanted: Field, r_above: Above) -> Step:
        kind = column_type(wanted.type, r_above)
        try:
            value = default_of(wanted, r_above)
        except SchemaError as e:
            return _error(str(e), kind)
        if value is None:
            return Step(lambda array: pa.nulls(len(array), kind))
        physical = pa.array([value], physical_type(wanted.type, r_above))
        one = self.step(wanted.type, wanted.type, r_above, r_above).run(physical)
        return Step(lambda array: repeat(one, len(array)))

    def _writer_union(self, writer: Type, reader: Type, w_above: Above, r_above: Above) -> Step:
        kind = column_type(reader, r_above)
        pairwise = reader.kind == "union" and self._equivalent(writer, reader, set())
        steps = []
        for at, branch in enumerate(writer.branches):
            if branch.kind == "null":
                continue
            if pairwise:
                made = self.step(branch, reader.branches[at], w_above, r_above)
                steps.append(_inject(made, reader, at, kind))
            else:
                steps.append(self.step(branch, reader, w_above, r_above))
        takes_null = accepts_null(reader)

        def run(array: pa.Array) -> pa.Array:
            if array.null_count and not takes_null:
                raise ResolutionError(f"null was written, {reader.label} is wanted")
            if nullable and steps[0].leaf:
                return steps[0].run(array)
            branches = [array] if nullable else array.flatten()
            rows = [live_rows(branch) for branch in branches]
            parts = [
                (at, s.run(branch.take(pa.array(at)) if len(at) < len(branch) else branch))
                for at, s, branch in zip(rows, steps, branches, strict=True)
                if len(at)
            ]
            return merge(parts, len(array), kind)

        nullable = writer.nullable is not None
        return Step(run)

    def _first_match(self, writer: Type, reader: Type, w_above: Above, r_above: Above) -> int | None:
        """Which branch of the reader's union takes a value: the same type, else a like record, else a promotion."""
        like = None
        for at, branch in enumerate(reader.branches):
            if branch.kind != writer.kind:
                continue
            if not branch.name or self._name(writer) == branch.name:
                return at
            same_name = self._short_name(writer) == _short(branch.name)
            if branch.kind != "record" or not (like is None or same_name):
                continue
            if not self.step(writer, branch, w_above, r_above).error:
                like = at
        if like is not None:
            return like
        wider = _PROMOTIONS.get(writer.kind, ())
        return next((at for at, branch in enumerate(reader.branches) if branch.kind in wider), None)

    def _equivalent(self, writer: Type, reader: Type, seen: set[tuple[int, int]]) -> bool:
        """Whether unions correspond branch by branch (Java's `unionEquiv`)."""
        if writer.kind != reader.kind or (writer.name and self._short_name(writer) != _short(reader.name)):
            return False
        if (id(writer), id(reader)) in seen:
            return True
        seen.add((id(writer), id(reader)))
        names = [self._field_name(writer, f) for f in writer.fields]
        if names != [f.name for f in reader.fields]:
            return False
        if writer.size != reader.size or writer.symbols != reader.symbols:
            return False
        ours, theirs = children(writer), children(reader)
        return len(ours) == len(theirs) and all(self._equivalent(w, r, seen) for w, r in zip(ours, theirs, strict=True))

    def _reference(self, writer: Type, reader: Type, r_above: Above) -> Step:
        if is_reference(reader, r_above) and writer is reader:
            return IDENTITY
        kind = column_type(reader, r_above)

        def run(array: pa.Array) -> pa.Array:
            if not len(array):
                return pa.nulls(0, kind)
            # Compiled here, as the values end somewhere and the schemas do not.
            return self.step(writer, reader, (), r_above).run(read_all(row_codec(writer), array.to_pylist()))

        return Step(run)

    def _to_reference(self, writer: Type, reader: Type, w_above: Above) -> Step:
        def run(array: pa.Array) -> pa.Array:
            if not len(array):
                return pa.nulls(0, pa.binary())
            column = self.step(writer, reader, w_above, ()).run(array)
            return pa.array(row_codec(reader).write(to_physical(column, reader, (), reader.name)), pa.binary())

        return Step(run)

    def _name(self, writer: Type) -> str:
        return self.names.get(writer.name, writer.name)

    def _short_name(self, writer: Type) -> str:
        return _short(self._name(writer))

    def _field_name(self, writer: Type, given: Field) -> str:
        return self.fields.get(self._name(writer), {}).get(given.name, given.name)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _error(reason: str, kind: pa.DataType) -> Step:
    def run(array: pa.Array) -> pa.Array:
        if len(array):
            raise ResolutionError(reason)
        return pa.nulls(0, kind)

    return Step(run, error=True)


def _promotion(writer: Type, reader: Type, kind: pa.DataType) -> Step:
    if reader.kind not in _PROMOTIONS.get(writer.kind, ()):
        return _error(f"{writer.label} was written, {reader.label} is wanted", kind)
    physical = physical_type(reader)

    def run(array: pa.Array) -> pa.Array:
        try:
            # Not safe: a long that a float cannot hold exactly is rounded, as Java does.
            return lift(array.cast(physical, safe=reader.kind == "string"), reader)
        except pa.ArrowInvalid:
            raise ResolutionError(f"{writer.label} was written, which is no {reader.label} here") from None

    return Step(run, leaf=True)


def _enum(writer: Type, reader: Type) -> Step:
    if set(writer.symbols) <= set(reader.symbols):
        return IDENTITY
    known = pa.array(reader.symbols, pa.string())
    default = pa.scalar(reader.default_symbol, pa.string())

    def run(array: pa.Array) -> pa.Array:
        fits = pc.or_(pc.is_in(array, known), array.is_null())
        if pc.all(fits, min_count=0).as_py():
            return array
        if not default.is_valid:
            raise ResolutionError(f"a symbol that {reader.name} does not have, and no default")
        return pc.if_else(fits, array, default)

    return Step(run, leaf=True)


def _list(item: Step, kind: pa.DataType) -> Step:
    def run(array: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(array.offsets, item.run(array.values), type=kind)

    return Step(run)


def _map(item: Step, kind: pa.DataType) -> Step:
    def run(array: pa.Array) -> pa.Array:
        return pa.MapArray.from_arrays(array.offsets, array.keys, item.run(array.items), type=kind)

    return Step(run)


def _inject(step: Step, union: Type, at: int, kind: pa.DataType) -> Step:
    """The result of a branch as a column of the whole union."""
    branch = union.branches[at]
    if branch.kind == "null":
        return Step(lambda array: pa.nulls(len(array), kind))
    if union.nullable is not None:
        return step
    labels = [member.label for member in members(union)]

    def run(array: pa.Array) -> pa.Array:
        made = step.run(array)
        columns = [made if label == branch.label else pa.nulls(len(array), kind.field(label).type) for label in labels]
        return pa.StructArray.from_arrays(columns, fields=list(kind))

    return replace(step, run=run, leaf=False)
