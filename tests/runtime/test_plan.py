"""Building tasks: who is asked for schemas, how often, and what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streampipe import Processor, Tumbling, agg
from streampipe.errors import TopologyError, UnknownSubject
from streampipe.runtime.plan import TaskBuilder
from streampipe.schemas.registry.local import LocalRegistry
from tests.operators.support import IN


class Counting:
    """A registry that counts what it is asked."""

    def __init__(self, registry: LocalRegistry) -> None:
        self._registry, self.asked = registry, 0

    def __getattr__(self, name: str) -> Any:
        self.asked += 1
        return getattr(self._registry, name)


def processor(key: str = "k") -> Processor:
    p = Processor("p")
    p.source("in").key_by(key).window(Tumbling(5)).agg(n=agg.count()).to("out")
    return p


def build(p: Processor, folder: Path, registry: Any = None, suffix: str = "") -> TaskBuilder:
    topology = p.topology.renamed(suffix) if suffix else p.topology
    registry = registry or LocalRegistry(str(folder / "r.db"))
    return TaskBuilder(topology, registry, str(folder), sleep=lambda _: None)


def test_only_the_first_build_asks_the_registry(tmp_path: Path) -> None:
    registry = LocalRegistry(str(tmp_path / "r.db"))
    registry.register("in-value", IN)
    counting = Counting(registry)
    builder = build(processor(), tmp_path, counting)
    builder.build()
    first = counting.asked
    builder.build()
    assert counting.asked == first > 0


def test_a_topic_that_nobody_knows_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownSubject, match="in-value"):
        build(processor(), tmp_path).build()


def test_a_key_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "in.avsc").write_text(IN)
    with pytest.raises(TopologyError, match="'nope' is not among k, x, y, s"):
        build(processor("nope"), tmp_path).build()


def test_a_renamed_topology_finds_the_schemas_of_the_original_topics(tmp_path: Path) -> None:
    (tmp_path / "in.avsc").write_text(IN)
    (tmp_path / "out.avsc").write_text('{"type":"record","name":"O","fields":[{"name":"n","type":"long"}]}')
    registry = LocalRegistry(str(tmp_path / "r.db"))
    build(processor(), tmp_path, registry, "-again").build()
    assert json.loads(registry.latest("out-again-value").text) == json.loads((tmp_path / "out.avsc").read_text())
