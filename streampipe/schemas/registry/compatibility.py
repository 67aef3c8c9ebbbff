"""Would readers of a new schema understand what was written with the old one? Answered by Apache Avro's own module."""

from __future__ import annotations

import warnings

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.errors import AvroException
from avro.schema import parse


def backward_incompatibilities(*, reader: str, writer: str) -> list[str]:
    """Reasons why `reader` cannot read what `writer` wrote, one line each; empty when it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about logical types that this library does not know; they do not matter
            checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # theirs is not annotated
            result = checker.get_compatibility(parse(reader), parse(writer))
    except (AvroException, ValueError, RecursionError) as e:
        return [f"Apache Avro refuses it: {' '.join(str(e).split())[:200]}"]
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    where = sorted(result.locations) or ["/"]
    return [" ".join(str(message).split()) for message in sorted(result.messages)] or [f"incompatible at {where[0]}"]
