"""One run of the demo for each broker; the tests look at what came out of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.dataset import KEYS
from demo.load import OUTPUTS, load
from demo.place import Place
from demo.results import Results, collect
from demo.workers import run


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished demo and where its topics are."""

    place: Place
    results: Results


BROKERS = ("local", pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.registry]))


@pytest.fixture(scope="session", params=BROKERS)
def ran(request: pytest.FixtureRequest) -> Iterator[Ran]:
    """The demo's processors over the demo's data, each as a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = Place(f"local:{folder / 'broker.db'}", f"local:{folder / 'registry.db'}")
        if request.param == "kafka":
            bootstrap: str = request.getfixturevalue("kafka_bootstrap")
            place = Place(f"kafka:{bootstrap}", request.getfixturevalue("registry_url"))
            forget(place)
        loaded = load(place, lambda _line: None)
        finished = run(place, folder, lambda _processor, _done: None)
        yield Ran(place, collect(place, loaded, finished))


def forget(place: Place) -> None:
    """Delete what an earlier run left on a Kafka that outlives the tests."""
    with closing(place.open().admin()) as admin:
        for topic in admin.topics():
            if topic in KEYS or topic.startswith(OUTPUTS):
                admin.delete_topic(topic)
        for group in set(OUTPUTS) & set(admin.groups()):
            admin.delete_group(group)
