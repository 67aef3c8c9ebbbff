"""The topics that a `TopologyTestDriver` knows."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from streampipe import Processor
from streampipe.errors import NotFound
from streampipe.testing import TopologyTestDriver


def test_a_topic_that_is_not_the_processors_is_refused_and_its_own_are_named(tmp_path: Path) -> None:
    text = json.dumps({"type": "record", "name": "In", "fields": [{"name": "k", "type": "string"}]})
    p = Processor("p")
    p.source("in", schema=text).key_by("k").to("out")
    with closing(TopologyTestDriver(p, schemas=str(tmp_path))) as driver:
        for topic in ("in", "out", "p-dlq", "p-key-by-1-repartition"):
            assert driver.read(topic) == []
        with pytest.raises(NotFound, match=r"has no topic 'typo'; it has in, out, p-dlq, p-key-by-1-repartition$"):
            driver.read("typo")
