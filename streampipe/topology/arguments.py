"""What arguments of streams and tables may be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import polars as pl

from streampipe.aggregates import Aggregate
from streampipe.errors import TopologyError
from streampipe.policies import EmitPolicy
from streampipe.topology.builder import Columns
from streampipe.topology.nodes import Node
from streampipe.windows import Duration, milliseconds

P = ParamSpec("P")
R = TypeVar("R")
_WORDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    Duration: "a length of time such as '10m'",
    Duration | tuple[Duration, Duration]: "a length of time such as '10m', or one before and one after",
    Columns: "the name of a column, or a tuple of them",
    tuple[str, ...] | list[str]: "a tuple of names",
    pl.Expr: "a Polars expression such as pl.col('x') > 0",
    str | pl.Expr: "the name of a column or a Polars expression",
    Aggregate: "an aggregate such as agg.count()",
    Callable[..., Any]: "a function",
}


def checked(method: Callable[P, R], name: str = "") -> Callable[P, R]:
    """Have it raise TopologyError for what is not as its annotations say, and for a length of time that is none."""
    signature, what = inspect.signature(method), name or method.__qualname__.removesuffix(".__init__").split(".")[-1]

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TopologyError(f"{what}: {error}") from None
        hints = get_type_hints(method)
        for parameter, argument, value in _each(signature, given):
            if not _fits(value, hint := hints.get(parameter, Any)):
                said = " ".join(repr(value).split())[:80]
                raise TopologyError(f"{what} {argument}={said}: use {_in_words(hint)}")
        try:
            return method(*args, **kwargs)
        except ValueError as error:
            raise TopologyError(f"{what}: {error}") from error

    return call


def _each(signature: inspect.Signature, given: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Parameter, name and value of each argument; there may be several of one parameter."""
    for parameter, value in given.items():
        kind = signature.parameters[parameter].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            yield from ((parameter, name, one) for name, one in value.items())
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            yield from ((parameter, parameter, one) for one in value)
        else:
            yield parameter, parameter, value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, as far as that matters here: literals are left to `one_of`."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin in (tuple, list, Sequence):
        kinds = parts if origin is tuple and ... not in parts else None
        if not isinstance(value, tuple | list) or (kinds and len(kinds) != len(value)):
            return False
        return all(_fits(one, parts[0]) for one in value)
    if origin is Callable:
        return callable(value)
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)


def _in_words(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        parts = tuple(part for part in get_args(hint) if part is not NoneType)
        hint = Union[parts]  # noqa: UP007 - of as many as there are
        if hint not in _WORDS:
            return " or ".join(_in_words(part) for part in parts)
    return _WORDS.get(hint) or f"a {getattr(hint, '__name__', hint)}"


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
