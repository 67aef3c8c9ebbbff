from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe.brokers.local import LocalBroker
from streampipe.errors import ConfigError
from streampipe.records import ProduceBatch, TopicPartition
from streampipe.replay.positions import Position, offsets_at, parse_position

NOW = 1_700_000_000_000

PLACES = {
    "earliest": Position("earliest"),
    "latest": Position("latest"),
    "17": Position("offset", 17),
    "1700000000000": Position("time", NOW),
    "offset:1700000000000": Position("offset", NOW),
    "2h ago": Position("time", NOW - 7_200_000),
    "1.5d": Position("time", NOW - 129_600_000),
    "2023-11-14T22:13:20": Position("time", NOW),
    "2023-11-14T22:13:20Z": Position("time", NOW),
    "2023-11-15T00:13:20+02:00": Position("time", NOW),
    "2023-11-14": Position("time", NOW - 80_000_000),
}


@pytest.mark.parametrize("text", PLACES)
def test_a_place_is_read_as_people_write_it(text: str) -> None:
    assert parse_position(text, NOW) == PLACES[text]


@pytest.mark.parametrize("text", ["", "yesterday", "-5", "2h from now", "2023-13-01", "offset:", "offset:x", "1e3"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no place in a topic"):
        parse_position(text, NOW)


@given(
    st.integers(10**8, 2**33).map(lambda s: datetime.fromtimestamp(s, UTC)),
    st.integers(-720, 720).map(lambda m: timezone(timedelta(minutes=m))),
)
def test_an_iso_time_means_the_same_moment_in_every_zone(utc: datetime, zone: timezone) -> None:
    assert parse_position(utc.isoformat(), 0) == parse_position(utc.astimezone(zone).isoformat(), 0)
    assert parse_position(utc.replace(tzinfo=None).isoformat(), 0) == parse_position(utc.isoformat(), 0)


def test_a_position_is_an_offset_within_each_partition(tmp_path: Path) -> None:
    broker = LocalBroker(tmp_path / "broker.db")
    admin, producer = broker.admin(), broker.producer()
    admin.create_topic("t", 2)
    producer.produce(ProduceBatch("t", [None] * 4, [b"v"] * 4, [100, 200, 300, 900], [0, 0, 0, 1]))
    producer.flush()
    producer.close()
    p0, p1 = partitions = [TopicPartition("t", 0), TopicPartition("t", 1)]
    assert offsets_at(admin, partitions, Position("earliest")) == {p0: 0, p1: 0}
    assert offsets_at(admin, partitions, Position("latest")) == {p0: 3, p1: 1}
    assert offsets_at(admin, partitions, Position("time", 150)) == {p0: 1, p1: 0}
    assert offsets_at(admin, partitions, Position("time", 901)) == {p0: 3, p1: 1}
    assert offsets_at(admin, partitions, Position("offset", 2)) == {p0: 2, p1: 1}
    admin.close()
