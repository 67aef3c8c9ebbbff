"""One fate for each record, and dead letters exactly those that were fed in, byte for byte."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import replace

import pytest

from demo.broken import PROCESSORS, broken_bytes, expected_dead_letters, rule_breakers
from demo.dataset import read
from demo.results import mistakes
from streampipe.records import Record, TopicPartition, records_of
from tests.demo.conftest import Ran

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # the fixture is a whole demo, on a busy machine as well
PREFIX = "__streampipe.errors."


def records(ran: Ran, topic: str) -> dict[tuple[int, int], Record]:
    """Raw records of a topic by partition and offset."""
    broker = ran.place.open()
    with closing(broker.admin()) as admin:
        partitions = [TopicPartition(topic, n) for n in range(admin.describe_topic(topic).partitions)]
        ends = admin.offsets(partitions, "latest")
        starts = admin.offsets(partitions, "earliest")
    found: dict[tuple[int, int], Record] = {}
    with closing(broker.reader(starts)) as reader:
        while any(reader.position(tp) < ends[tp] for tp in partitions):
            for batch in reader.poll(10_000, timeout_s=1):
                found |= {(r.partition, r.offset): r for r in records_of(batch)}
    return found


def reason(letter: Record) -> dict[str, str]:
    """What the headers of a dead letter say."""
    return {name.removeprefix(PREFIX): (value or b"").decode() for name, value in letter.headers}


def test_the_fates_of_a_processors_records_add_up_to_what_it_consumed(ran: Ran) -> None:
    broken = len(broken_bytes(first_flight_bytes())) + len(rule_breakers({"origin": "EWR"}))
    total = read("flights").height + broken + 1
    assert ran.results.loaded == total
    fates = {name: ran.results.fates[name]["flights"] for name in PROCESSORS}
    alerts = ran.results.alerts.height
    assert {name: counts["dlq"] for name, counts in fates.items()} == {
        name: broken + (name == "delays-hourly") for name in PROCESSORS
    }
    assert fates["flights-enriched"]["ok"] == total - broken
    assert fates["delay-alerts"]["ok"] == alerts
    assert fates["delay-alerts"]["filtered"] == total - broken - alerts
    for counts in fates.values():
        assert sum(counts.values()) == total


def test_an_account_that_is_short_by_one_record_is_noticed(ran: Ran) -> None:
    assert mistakes(ran.results) == []
    assert mistakes(replace(ran.results, loaded=ran.results.loaded + 1))
    without_one = replace(ran.results, alerts=ran.results.alerts.tail(-1))
    assert any(line.startswith("delay-alerts") for line in mistakes(without_one))


@pytest.mark.parametrize("processor", PROCESSORS)
def test_dead_letters_are_the_injected_records_byte_for_byte(ran: Ran, processor: str) -> None:
    flights = records(ran, "flights")
    letters = list(records(ran, f"{processor}-dlq").values())
    assert Counter(reason(letter)["class"] for letter in letters) == expected_dead_letters()[processor]
    for letter in letters:
        why = reason(letter)
        origin = flights[int(why["partition"]), int(why["offset"])]
        assert (letter.key, letter.value) == (origin.key, origin.value)
        assert why["topic"] == "flights"
        assert int(why["timestamp"]) == origin.timestamp


@pytest.mark.parametrize("processor", PROCESSORS)
def test_each_broken_rule_is_named(ran: Ran, processor: str) -> None:
    letters = [reason(letter) for letter in records(ran, f"{processor}-dlq").values()]
    rules = Counter(why["rule"] for why in letters if why["class"] == "validation")
    assert rules == Counter(rule_breakers({"origin": "EWR"}).keys())


def test_bytes_that_are_no_flight_are_spoilt_each_in_its_own_way() -> None:
    broken = broken_bytes(first_flight_bytes())
    assert len({b.value for b in broken}) == len(broken) == len({b.what for b in broken})
    with pytest.raises(ValueError, match="EWR"):
        broken_bytes(b"\x00\x00\x00\x00\x01" + b"\x06LGA")


def first_flight_bytes() -> bytes:
    """Enough of a framed flight to be spoilt."""
    return b"\x00\x00\x00\x00\x01\x02\x06EWR" + bytes(20)
