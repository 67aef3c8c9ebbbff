"""Whether what a user's function returned fits a type, exactly: Arrow itself would cut fractions off."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pyarrow as pa

Fits = Callable[[Any], bool]

_EXACT = 2**53
"""Integers up to here are doubles too."""


@lru_cache(maxsize=1_000)
def fits(kind: pa.DataType) -> Fits:
    """A test for values of a type; None is a value of every type, here and within lists and structs."""
    is_ = pa.types
    if is_.is_list(kind) or is_.is_large_list(kind):
        item = fits(kind.value_type)
        return _or_none(lambda v: type(v) in (list, tuple) and all(map(item, v)))
    if is_.is_struct(kind):
        members = [(field.name, fits(field.type)) for field in kind]
        return _or_none(lambda v: type(v) is dict and all(test(v.get(name)) for name, test in members))
    if is_.is_map(kind):
        return _or_none(_entries(fits(kind.item_type)))
    return _or_none(_leaf(kind))


def _leaf(kind: pa.DataType) -> Fits:
    is_ = pa.types
    if is_.is_boolean(kind):
        return lambda v: type(v) is bool
    if is_.is_integer(kind):
        low = 0 if is_.is_unsigned_integer(kind) else -(1 << (kind.bit_width - 1))
        high = low + (1 << kind.bit_width) - 1
        return lambda v: type(v) is int and low <= v <= high
    if is_.is_floating(kind):
        return lambda v: type(v) is float or (type(v) is int and -_EXACT <= v <= _EXACT)
    if is_.is_string(kind):
        return lambda v: type(v) is str and (v.isascii() or _converts(v, kind))
    return lambda v: not isinstance(v, float) and _converts(v, kind)


def _entries(item: Fits) -> Fits:
    """A map is a dict, or what Arrow makes of one: a list of pairs."""

    def test(value: Any) -> bool:
        try:
            return all(type(k) is str and item(v) for k, v in (value.items() if type(value) is dict else value))
        except (TypeError, ValueError):
            return False

    return test


def _or_none(test: Fits) -> Fits:
    return lambda v: v is None or test(v)


def _converts(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.scalar(value, kind)
    except (ValueError, TypeError, OverflowError, NotImplementedError):  # Arrow's errors are among these
        return False
    return True
