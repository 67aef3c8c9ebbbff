"""Defaults of fields: JSON in the schema, physical values in the columns."""

from __future__ import annotations

from typing import Any

from streampipe.schemas.model import Field, SchemaError, Type
from streampipe.schemas.types import is_reference


def default_of(field: Field, above: tuple[Type, ...] = ()) -> Any:
    """The default of a field as Arrow takes it in physical form. Raises SchemaError if there is none that fits."""
    if not field.has_default:
        raise SchemaError(f"field {field.name!r} has no default")
    try:
        return _value(field.type, field.default, above)
    except (TypeError, ValueError, KeyError, AttributeError):
        raise SchemaError(f"the default of field {field.name!r} is not of its type") from None


def check_defaults(node: Type, above: tuple[Type, ...] = ()) -> None:
    """Raise SchemaError if a default anywhere below `node` is not of its field's type."""
    if is_reference(node, above):
        return
    below = (*above, node) if node.kind == "record" else above
    for field in node.fields:
        if field.has_default:
            default_of(field, below)
        check_defaults(field.type, below)
    for child in [*node.branches, *([node.items] if node.items else [])]:
        check_defaults(child, below)


def _value(node: Type, given: Any, above: tuple[Type, ...]) -> Any:
    if node.kind == "union":
        return _branch(node, given, above)
    if node.kind in ("null", "boolean", "int", "long", "float", "double", "string", "enum"):
        return _scalar(node, given)
    if node.kind in ("bytes", "fixed"):
        value = given.encode("latin-1")  # one byte for each code point 0 to 255
        if node.kind == "fixed" and len(value) != node.size:
            raise ValueError
        return value
    if node.kind == "array":
        _expect(isinstance(given, list))
        return [_value(node.child, v, above) for v in given]
    _expect(isinstance(given, dict))
    if node.kind == "map":
        return [(k, _value(node.child, v, above)) for k, v in given.items()]
    if is_reference(node, above):
        raise SchemaError(f"a default within itself of the recursive record {node.name!r} is not supported")
    below = (*above, node)
    return {
        f.name: _value(f.type, given[f.name], below) if f.name in given else default_of(f, below) for f in node.fields
    }


def _branch(node: Type, given: Any, above: tuple[Type, ...]) -> Any:
    """The first branch that the default fits, as Avro's Java reader has it since 1.9."""
    for branch in node.branches:
        try:
            value = _value(branch, given, above)
        except (TypeError, ValueError, KeyError, AttributeError):
            continue
        return value if node.nullable is not None or value is None else {branch.label: value}
    raise ValueError


def _scalar(node: Type, given: Any) -> Any:
    if node.kind == "null":
        _expect(given is None)
    elif node.kind == "boolean":
        _expect(isinstance(given, bool))
    elif node.kind in ("string", "enum"):
        _expect(isinstance(given, str) and (node.kind == "string" or given in node.symbols))
    else:
        _expect(isinstance(given, int | float) and not isinstance(given, bool))
        if node.kind in ("int", "long"):
            bits = 32 if node.kind == "int" else 64
            _expect(isinstance(given, int) and -(2 ** (bits - 1)) <= given < 2 ** (bits - 1))
        else:
            return float(given)
    return given


def _expect(holds: bool) -> None:
    if not holds:
        raise ValueError
