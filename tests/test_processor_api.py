"""What is wrong while a processor is described is said there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from streampipe import Processor, Tumbling, agg
from streampipe.errors import TopologyError


@pytest.mark.parametrize("options", [{"emit": "finall"}, {"late": "ignore"}])
def test_a_misspelled_policy_is_refused_and_the_right_ones_are_named(options: Any) -> None:
    with pytest.raises(TopologyError, match=r"use one of '(final|dead_letter)'"):
        Processor("p").source("in", key="k").window(Tumbling(5), **options)


def keyed() -> Any:
    """A stream by key; not typed, since these are mistakes that a type checker finds too."""
    return Processor("p").source("in", key="k")


def joined(**options: Any) -> object:
    p: Any = Processor("p")
    return p.source("in", key="k").join(p.source("other", key="k"), **options)


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: Processor(5), "Processor name=5: use a text"),  # type: ignore[arg-type]
    (lambda: keyed().window("10m"), "window window='10m': use a Tumbling or a Hopping or a Sliding or a Session"),
    (lambda: keyed().window(Tumbling), "window window=<class 'streampipe.windows.Tumbling'>: use a Tumbling or"),
    (lambda: keyed().window(Tumbling("1m"), idle_after="1 min"), "window: duration '1 min' is not like 500ms"),
    (lambda: keyed().window(), "window: missing a required argument: 'window'"),
    (lambda: keyed().filter("amount > 1"), "filter predicate='amount > 1': use a Polars expression such as"),
    (lambda: keyed().filter(lambda _: True), "filter predicate=<function <lambda>."),
    (lambda: keyed().agg(n=5), "agg n=5: use an aggregate such as agg.count()"),
    (lambda: keyed().window(Tumbling("1m")).agg(n="x"), "agg n='x': use an aggregate such as agg.count()"),
    (lambda: agg.sum(5), "agg.sum column=5: use the name of a column or an expression"),  # type: ignore[arg-type]
    (lambda: keyed().handle("f", to="out"), "handle function='f': use a function"),
    (lambda: keyed().handle(print, retry=3), "handle retry=3: use a Retry"),
    (lambda: keyed().handle(print, ttl="soon"), "handle: duration 'soon' is not like"),
    (lambda: keyed().with_columns(x="page"), "with_columns x='page': use a Polars expression such as"),
    (lambda: keyed().select(5), "select columns=5: use the name of a column or a Polars expression"),
    (lambda: keyed().expect(r="page"), "expect r='page': use a Polars expression such as"),
    (lambda: keyed().key_by(["k"]), "key_by columns=['k']: use a text"),
    (lambda: keyed().branch("x > 1"), "branch predicates='x > 1': use a Polars expression such as"),
    (lambda: keyed().merge(5), "merge others=5: use a Stream"),
    (lambda: keyed().merge(), "merge() needs at least one other stream"),
    (lambda: keyed().to(5), "to topic=5: use a text"),
    (lambda: keyed().handle(print, to=5), "handle to=5: use a text"),
    (lambda: keyed().deduplicate(within=None), "deduplicate within=None: use a length of time such as '10m'"),
    (lambda: keyed().deduplicate(within="1 x"), "deduplicate: duration '1 x' is not like"),
    (lambda: keyed().join(5, on="k"), "join other=5: use a Table or a Stream"),
    (lambda: joined(on=5), "join on=5: use the name of a column, or a tuple of them"),
    (lambda: joined(on="k", within=("1m",)), "join within=('1m',): use a length of time such as '10m', or one before"),
    (lambda: joined(on="k", within="1m", columns="n"), "join columns='n': use a tuple of names"),
    (lambda: joined(on="k", wihtin="1m"), "join: got an unexpected keyword argument 'wihtin'"),
]


@pytest.mark.parametrize(("mistake", "message"), MISTAKES, ids=[message[:40] for _, message in MISTAKES])
def test_an_argument_of_another_kind_is_refused_and_the_right_one_is_named(
    mistake: Callable[[], object], message: str
) -> None:
    with pytest.raises(TopologyError, match=f"^{re.escape(message)}"):
        mistake()


def test_a_join_of_no_known_kind_is_refused() -> None:
    p = Processor("p")
    with pytest.raises(TopologyError, match="outer is for streams only"):
        p.source("in").join(p.global_table("t", key="k"), on="k", how="outer")  # type: ignore[call-overload]  # the point


def test_a_key_given_as_a_list_is_the_same_key() -> None:
    p = Processor("p")
    s = p.source("in", key=["a", "b"])  # type: ignore[arg-type]  # what people write
    assert s.key_by("a", "b") is s


def test_a_decorated_function_stays_what_it_is() -> None:
    p = Processor("p")

    @p.source("in").handle(to="out")
    def function(event: dict[str, Any]) -> None: ...

    assert function({}) is None
    assert [n.name for n in p.topology.nodes] == ["in", "function-1", "to-out"]


def test_a_quantile_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        agg.quantile("x", 1.1)
