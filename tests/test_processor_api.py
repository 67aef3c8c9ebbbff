"""What is wrong while a processor is described is said there."""

from __future__ import annotations

from typing import Any

import pytest

from streampipe import Processor, Tumbling, agg
from streampipe.errors import TopologyError


@pytest.mark.parametrize("options", [{"emit": "finall"}, {"late": "ignore"}])
def test_a_misspelled_policy_is_refused_and_the_right_ones_are_named(options: Any) -> None:
    with pytest.raises(TopologyError, match=r"use one of '(final|dead_letter)'"):
        Processor("p").source("in", key="k").window(Tumbling(5), **options)


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
