"""Walks a record's bytes by its writer schema and refuses whatever is not exactly that, without building anything.

Nothing reaches fastavro that was not walked: it crashes the process on some 5,000 nested levels, builds thirty million
elements out of five bytes when elements take none, and reads a boolean byte of 2, an enum index of -1 or an int of
40 bits as if they were fine. Apache Avro has the same limits (AVRO-4327, AVRO-4296). Bytes after the record are
ignored, as Avro's Java reader does. Text must be UTF-8 in every field, also in those that a reader skips.
"""

from __future__ import annotations

from collections.abc import Callable

from streampipe.schemas.model import Type

MAX_LEVELS = 100
"""How often records may be nested in themselves within one value."""
MAX_EMPTY_ELEMENTS = 1_000_000
"""Array elements of one value that take no bytes; all others are bounded by the length of the record."""


class MalformedRecord(ValueError):
    """A record's bytes are not what its writer schema says. The message holds no payload."""


Walk = Callable[[bytes, int, "Budget"], int]
"""Position after a value that starts at a position; raises IndexError or MalformedRecord."""


class Budget:
    """What is left for one record."""

    __slots__ = ("elements", "levels")

    def __init__(self) -> None:
        self.levels = MAX_LEVELS
        self.elements = MAX_EMPTY_ELEMENTS


def scanner(node: Type) -> Callable[[bytes], None]:
    """A function that raises MalformedRecord unless bytes start with a whole value of `node`."""
    walk = _Compiler().compile(node)

    def scan(body: bytes) -> None:
        try:
            walk(body, 0, Budget())
        except IndexError:
            raise MalformedRecord("the record ends early") from None
        except RecursionError:
            raise MalformedRecord("nested too deeply") from None

    return scan


def minimum_bytes(node: Type, above: tuple[Type, ...] = ()) -> int:
    """How many bytes a value takes at least; 0 means that a count of elements is bounded by nothing."""
    if node.kind == "null":
        return 0
    if node.kind == "fixed":
        return node.size
    if node.kind == "record":
        # A record that must contain itself has no finite value, so any positive number is right.
        return 1 if node in above else sum(minimum_bytes(f.type, (*above, node)) for f in node.fields)
    return {"float": 4, "double": 8}.get(node.kind, 1)


def _long(body: bytes, at: int) -> tuple[int, int]:
    byte = body[at]
    if byte < 128:
        return (byte >> 1) ^ -(byte & 1), at + 1
    value, shift = byte & 127, 7
    while byte >= 128:
        at += 1
        byte = body[at]
        if shift > 63:
            raise MalformedRecord("a number is longer than ten bytes")
        value |= (byte & 127) << shift
        shift += 7
    if value >= 2**64:
        raise MalformedRecord("a number is longer than 64 bits")
    return (value >> 1) ^ -(value & 1), at + 1


def _walk_null(_body: bytes, at: int, _budget: Budget) -> int:
    return at


def _walk_boolean(body: bytes, at: int, _budget: Budget) -> int:
    if body[at] > 1:
        raise MalformedRecord("a boolean is neither 0 nor 1")
    return at + 1


def _walk_int(body: bytes, at: int, _budget: Budget) -> int:
    value, at = _long(body, at)
    if not -(2**31) <= value < 2**31:
        raise MalformedRecord("an int is longer than 32 bits")
    return at


def _walk_long(body: bytes, at: int, _budget: Budget) -> int:
    return _long(body, at)[1]


def _walk_bytes(body: bytes, at: int, _budget: Budget) -> int:
    size, at = _long(body, at)
    if size < 0:
        raise MalformedRecord("a length is negative")
    if at + size > len(body):
        raise MalformedRecord("the record ends early")
    return at + size


def _walk_string(body: bytes, at: int, budget: Budget) -> int:
    end = _walk_bytes(body, at, budget)
    try:
        str(body[_long(body, at)[1] : end], "utf-8")
    except UnicodeDecodeError:
        raise MalformedRecord("a string is not UTF-8") from None
    return end


def _skip(size: int) -> Walk:
    def walk(body: bytes, at: int, _budget: Budget) -> int:
        if at + size > len(body):
            raise MalformedRecord("the record ends early")
        return at + size

    return walk


_PRIMITIVE: dict[str, Walk] = {
    "null": _walk_null, "boolean": _walk_boolean, "int": _walk_int, "long": _walk_long, "float": _skip(4),
    "double": _skip(8), "bytes": _walk_bytes, "string": _walk_string,
}  # fmt: skip


class _Compiler:
    def __init__(self) -> None:
        self._records: dict[int, Walk] = {}

    def compile(self, node: Type) -> Walk:
        if node.kind in _PRIMITIVE:
            return _PRIMITIVE[node.kind]
        if node.kind == "record":
            return self._record(node)
        if node.kind == "union":
            return _union([self.compile(branch) for branch in node.branches])
        if node.kind == "enum":
            return _enum(len(node.symbols))
        if node.kind == "fixed":
            return _skip(node.size)
        item = self.compile(node.child)
        if node.kind == "array":
            return _blocks(item, free=minimum_bytes(node.child) == 0)
        return _blocks(lambda body, at, budget: item(body, _walk_string(body, at, budget), budget), free=False)

    def _record(self, node: Type) -> Walk:
        known = self._records.get(id(node))
        if known is not None:
            return known
        fields: list[Walk] = []

        def walk(body: bytes, at: int, budget: Budget) -> int:
            if budget.levels <= 0:
                raise MalformedRecord(f"nested deeper than {MAX_LEVELS} levels")
            budget.levels -= 1
            for field in fields:
                at = field(body, at, budget)
            budget.levels += 1
            return at

        self._records[id(node)] = walk
        fields += [self.compile(f.type) for f in node.fields]
        return walk


def _enum(symbols: int) -> Walk:
    def walk(body: bytes, at: int, _budget: Budget) -> int:
        index, at = _long(body, at)
        if not 0 <= index < symbols:
            raise MalformedRecord("an enum has no symbol of that number")
        return at

    return walk


def _union(branches: list[Walk]) -> Walk:
    count = len(branches)

    def walk(body: bytes, at: int, budget: Budget) -> int:
        index, at = _long(body, at)
        if not 0 <= index < count:
            raise MalformedRecord("a union has no branch of that number")
        return branches[index](body, at, budget)

    return walk


def _blocks(item: Walk, *, free: bool) -> Walk:
    def walk(body: bytes, at: int, budget: Budget) -> int:
        while True:
            count, at = _long(body, at)
            if count == 0:
                return at
            if count < 0:  # followed by the size of the block, which nothing here needs
                count, at = -count, _long(body, at)[1]
            if free:
                budget.elements -= count
                if budget.elements < 0:
                    raise MalformedRecord(f"more than {MAX_EMPTY_ELEMENTS} elements without bytes")
                at = item(body, at, budget)  # one tells about all
            else:
                for _ in range(count):
                    at = item(body, at, budget)

    return walk
