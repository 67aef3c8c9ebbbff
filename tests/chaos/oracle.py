"""What must have come out, computed the slow and obvious way from the input log, and how it differs from what did.

Values are decoded by fastavro, an event at a time. Rules I1 to I6 of the universal checks; I7, that the kills hit
anything, is `vacuity`.
"""

from __future__ import annotations

import io
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any, NamedTuple

import fastavro

from streampipe.records import Record
from streampipe.windows import Session, Tumbling
from tests.chaos.evidence import Evidence
from tests.chaos.failpoints import TIMES
from tests.chaos.processor import AHEAD_MS, BY_KEY, BY_SHOP, VISITS
from tests.chaos.traffic import FAULT
from tests.chaos.watch import gaps_s
from tests.chaos.wipes import left_alone
from tests.operators.window_oracle import At, Sessions

Where = tuple[str, int, int]
"""Topic, partition, offset."""
REASONS = {
    "garbage": "deserialization", "magic": "deserialization", "schema": "schema", "rule": "validation: not_negative",
    "negative": "validation: event_time", "ahead": "validation: max_ahead", "late": "late",
}  # fmt: skip
"""Class, and rule if there is one, of the dead letter that an injected fault makes."""
CHECKS = {
    "unexpected": "exit", "injection": "I1", "dead letters": "I1", "totals": "I2", "running": "I2", "visits": "I2",
    "shops": "I2", "observer": "I2", "echo": "I3", "repartition": "I3", "committed": "I4", "stores": "I5",
    "changelog": "I5", "open transactions": "I6",
}  # fmt: skip
"""The universal check that each rule is a part of; that no worker ends by itself is not one of them."""
ERRORS = "__streampipe.errors."
SHOWN = 3


class Event(NamedTuple):
    """A valid event and where it is in its log."""

    where: Where
    k: str
    seq: int
    at: int
    shop: str
    amount: int


@dataclass(slots=True)
class Group:
    """The aggregates of a window, and the partition that its events are in."""

    partition: int
    amounts: list[int] = field(default_factory=list)

    def values(self) -> tuple[int, int, int]:
        return len(self.amounts), sum(self.amounts), max(self.amounts)


Groups = dict[At, Group]


class Expected(NamedTuple):
    """Groups by key and window, those of them that are open after the last event, and the events that came too late."""

    groups: Groups
    open: set[At]
    late: set[Where]


class Values:
    """Decodes framed values with the schemas they were written with."""

    def __init__(self, schemas: dict[int, str]) -> None:
        self._schemas = {n: fastavro.parse_schema(json.loads(text)) for n, text in schemas.items()}

    def __call__(self, value: bytes) -> dict[str, Any]:
        """The event. Raises for anything that is none."""
        if value[0] != 0:
            raise ValueError("wrong magic byte")
        decoded = fastavro.schemaless_reader(io.BytesIO(value[5:]), self._schemas[int.from_bytes(value[1:5], "big")])
        assert isinstance(decoded, dict)
        return decoded


def _broken_rule(event: Event) -> str:
    """What a source and then `expect` have against it, if anything."""
    if event.at < 0:
        return "event_time"
    if event.at > time.time() * 1000 + AHEAD_MS:
        return "max_ahead"
    return "not_negative" if event.amount < 0 else ""


def millis(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def windows(events: Iterable[Event], window: Tumbling, key: Callable[[Event], str]) -> Expected:
    """What tumbling windows make of events, those of a partition in log order."""
    groups: Groups = {}
    late: set[Where] = set()
    stream_times: dict[int, int] = {}
    for event in events:
        partition = event.where[1]
        now = stream_times[partition] = max(stream_times.get(partition, 0), event.at)
        start = event.at - event.at % window.size_ms
        end = start + window.size_ms
        if end + window.grace_ms <= now:
            late.add(event.where)
        else:
            groups.setdefault((key(event), start, end), Group(partition)).amounts.append(event.amount)
    still = {at for at, group in groups.items() if at[2] + window.grace_ms > stream_times[group.partition]}
    return Expected(groups, still, late)


def sessions(events: list[Event], window: Session) -> Expected:
    """The same of sessions by key; those of a key, as its partition's stream time has them."""
    keys: dict[tuple[int, str], Sessions] = defaultdict(lambda: Sessions(window))
    stream_times: dict[int, int] = {}
    for n, event in enumerate(events):
        partition = event.where[1]
        of_key = keys[partition, event.k]
        of_key.now = stream_times[partition] = max(stream_times.get(partition, 0), event.at)
        of_key.take((event.k, n, event.at))
    groups: Groups = {}
    still: set[At] = set()
    for (partition, _), of_key in keys.items():
        of_key.now = stream_times[partition]
        of_key.settle()
        still |= of_key.held.keys()
        of_key.close()
        groups |= {at: Group(partition, [events[n].amount for n in ns]) for at, ns in of_key.said.items()}
    return Expected(groups, still, {events[n].where for of_key in keys.values() for n in of_key.late})


class Oracle:
    """The expectations of one run."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._topics, self._logs = evidence.topics, evidence.logs
        self._decode = Values(evidence.schemas)
        self._tombstones = 0
        self._valid, self._dead = self._input()
        self._windows = windows(self._valid, BY_KEY, lambda e: e.k)
        self._visits = sessions(self._valid, VISITS)
        self._dead |= dict.fromkeys(self._windows.late | self._visits.late, "late")
        self._repartitioned = [self._event(r) for r in self._logs[self._topics.repartition]]
        self._shops = windows(self._repartitioned, BY_SHOP, lambda e: e.shop)

    def _input(self) -> tuple[list[Event], dict[Where, str]]:
        valid: list[Event] = []
        dead: dict[Where, str] = {}
        for record in self._logs[self._topics.input]:
            if record.value is None:
                self._tombstones += 1  # nothing becomes of it
                continue
            try:
                event = self._event(record)
            except (ValueError, KeyError, EOFError, IndexError) as error:
                dead[_where(record)] = "schema" if isinstance(error, KeyError) else "deserialization"
                continue
            if rule := _broken_rule(event):
                dead[event.where] = f"validation: {rule}"
            else:
                valid.append(event)
        return valid, dead

    def _event(self, record: Record) -> Event:
        value = self._decode(record.value or b"")
        return Event(
            _where(record), value["k"], value["seq"], millis(value["at"]), value["shop"], value["amount"]
        )  # fmt: skip

    # -- findings ------------------------------------------------------------------------------------------------

    def findings(self) -> list[str]:
        """What is wrong, by rule; nothing if all is right."""
        topics = self._topics
        rules: dict[str, Iterator[str]] = {
            "unexpected": iter(self.evidence.unexpected),
            "injection": self._injection(),
            "echo": self._echo(),
            "totals": self._finals(topics.totals, "k", self._windows.groups),
            "running": self._updates(),
            "visits": self._finals(topics.visits, "k", self._visits.groups),
            "repartition": self._repartition(),
            "shops": self._finals(topics.shops, "shop", self._shops.groups),
            "dead letters": self._dead_letters(),
            "committed": self._positions(),
            "open transactions": self._transactions(),
            "stores": self._stores(),
            "changelog": self._changelogs(),
            "observer": self._observer(),
        }
        return [f"{rule}: {text}" for rule, found in rules.items() for text in _few(found)]

    def _injection(self) -> Iterator[str]:
        """The oracle and the producer agree on which records are bad, else one of them is wrong."""
        faults = {
            _where(r): (dict(r.headers)[FAULT] or b"").decode() for r in self._logs[self._topics.input] if r.headers
        }
        injected = {where: REASONS[fault] for where, fault in faults.items() if fault in REASONS}
        delayed = bool(self._fed_again())  # what is fed again comes later than it was meant to, and perhaps too late
        for where, fault in injected.items() ^ self._dead.items():
            if not (fault == "late" and delayed):
                yield f"{where, fault} is in one of injected and expected only"

    def _echo(self) -> Iterator[str]:
        """Per key what the input has: nothing lost, repeated or out of order, and the same values."""
        wanted = _sequences((e.k, (e.seq, e.amount)) for e in self._valid)
        passed: Counter[str] = Counter()
        for record in self._logs[self._topics.echo]:
            value = self._decode(record.value or b"")
            key, seq = value["k"], value["seq"]
            expected = wanted[key][passed[key] : passed[key] + 1]
            if record.key != key.encode() or expected != [(seq, value["amount"])]:
                yield f"{_where(record)}: {key} has {seq} where the input has {expected}"
            passed[key] += 1
        yield from (f"{k} ends at {passed[k]} of {len(all_)}" for k, all_ in wanted.items() if passed[k] != len(all_))

    def _results(self, topic: str, key: str) -> Iterator[tuple[Record, At, tuple[int, int, int]]]:
        for record in self._logs[topic]:
            yield record, *_entry(self._decode(record.value or b""), key)

    def _finals(self, topic: str, key: str, groups: Groups) -> Iterator[str]:
        seen: set[At] = set()
        for record, window, values in self._results(topic, key):
            if window in seen:
                yield f"{_where(record)}: {window} closed twice"
            seen.add(window)
            if window not in groups or groups[window].values() != values:
                expected = groups[window].values() if window in groups else None
                yield f"{_where(record)}: {window} is {values}, expected {expected}"
        yield from (f"{window} never closed" for window in groups.keys() - seen)

    def _updates(self) -> Iterator[str]:
        last: dict[At, tuple[int, int, int]] = {}
        groups = self._windows.groups
        for record, window, values in self._results(self._topics.running, "k"):
            before = last.get(window, (0, -1, -1))
            if values[0] <= before[0] or values[1] < before[1] or values[2] < before[2]:
                yield f"{_where(record)}: {window} goes from {before} to {values}"
            # every intermediate one as well: a prefix of what the window got, in order
            got = groups[window].amounts[: values[0]] if window in groups else []
            if not got or Group(0, got).values() != values:
                yield f"{_where(record)}: {window} was never {values}"
            last[window] = values
        expected = {window: group.values() for window, group in groups.items()}
        for window in last.keys() | expected.keys():
            if last.get(window) != expected.get(window):
                yield f"{window}: last value {last.get(window)}, expected {expected.get(window)}"

    def _repartition(self) -> Iterator[str]:
        """The same events, each once, and those of one key and shop in order."""
        passed = Counter(e[1:] for e in self._repartitioned)
        wanted = Counter(e[1:] for e in self._valid)
        yield from (f"{event} x {n} more than once" for event, n in (passed - wanted).items())
        yield from (f"{event} is lost" for event in wanted - passed)
        before = _sequences(((e.k, e.shop), e.seq) for e in self._valid)
        after = _sequences(((e.k, e.shop), e.seq) for e in self._repartitioned)
        yield from (f"{of} is out of order" for of, numbers in after.items() if numbers != before[of])

    def _dead_letters(self) -> Iterator[str]:
        """Exactly the expected ones by position, each once, for the right reason, original bytes kept."""
        expected = {**self._dead, **dict.fromkeys(self._shops.late, "late")}
        records = {
            _where(r): r for topic in (self._topics.input, self._topics.repartition) for r in self._logs[topic]
        }  # fmt: skip
        seen: set[Where] = set()
        for letter in self._logs[self._topics.dead]:
            errors = {name.removeprefix(ERRORS): (value or b"").decode() for name, value in letter.headers}
            where = errors["topic"], int(errors["partition"]), int(errors["offset"])
            if where in seen:
                yield f"{where} twice"
            seen.add(where)
            why = ": ".join(errors[part] for part in ("class", "rule") if part in errors)
            if expected.get(where) != why:
                yield f"{where} is there for {why}, expected {expected.get(where)}"
            original = records.get(where)
            if original is None or original[3:6] != letter[3:6]:
                yield f"{where}: timestamp, key or value are not the original's"
        yield from (f"{where} ({why}) is missing" for where, why in expected.items() if where not in seen)

    def _positions(self) -> Iterator[str]:
        topics = (self._topics.input, self._topics.repartition)
        for tp, end in self.evidence.ends.items():
            if tp.topic in topics and self.evidence.committed.get(tp, 0) != end:
                yield f"{tp} is at {self.evidence.committed.get(tp)} of {end}"

    def _transactions(self) -> Iterator[str]:
        for tp, end in self.evidence.ends.items():
            if self.evidence.stable_ends[tp] != end:
                yield f"{tp} is stable up to {self.evidence.stable_ends[tp]} of {end}"

    def _stores(self) -> Iterator[str]:
        """Restored before windows are closed for the end, exactly those are there that are open."""
        by_key = ("k", self._windows)
        stores = {"sum-by-key": by_key, "run-by-key": by_key, "visits-by-key": ("k", self._visits)}
        for name, (key, expected) in (stores | {"sum-by-shop": ("shop", self._shops)}).items():
            wanted = Counter((at, expected.groups[at].values()) for at in expected.open)
            found = Counter(_entry(columns, key) for columns in self.evidence.held.get(name, ()))
            yield from (f"{name} holds {entry} which is not open" for entry in found - wanted)
            yield from (f"{name} does not hold {entry}" for entry in wanted - found)

    def _changelogs(self) -> Iterator[str]:
        """Replayed into an empty store nothing is left but the stream times, under the empty key."""
        for topic in self._topics.changelogs:
            store: dict[tuple[int, bytes | None], bytes] = {}
            for record in self._logs[topic]:
                if record.value is None:
                    store.pop((record.partition, record.key), None)
                else:
                    store[record.partition, record.key] = record.value
            yield from (f"{topic}[{p}] still has window {key!r}" for p, key in store if key != b"")
            if not store:
                yield f"{topic} has no stream time: nothing was ever written"

    def _observer(self) -> Iterator[str]:
        for topic in self._topics.written:
            seen, there = _by_partition(self.evidence.observed[topic]), _by_partition(self._logs[topic])
            for partition in seen.keys() | there.keys():
                if seen.get(partition) != there.get(partition):
                    counts = len(seen.get(partition, ())), len(there.get(partition, ()))
                    yield f"{topic}[{partition}]: saw {counts[0]} records, a second pass {counts[1]}, and not the same"

    def _fed_again(self) -> int:
        """A Kafka that is killed may take a batch twice whose acknowledgement was lost."""
        return len(self._valid) - len({(e.k, e.seq) for e in self._valid}) - self._copies()

    def _copies(self) -> int:
        """What was fed twice on purpose."""
        return sum((FAULT, b"copy") in record.headers for record in self._logs[self._topics.input])

    def summary(self) -> str:
        """What was checked, in one line."""
        kinds = Counter(self._dead.values())
        return (
            f"{len(self._valid)} valid, {self._copies()} of them copies, {self._fed_again()} fed again by accident, "
            f"{self._tombstones} tombstones, "
            f"dead {dict(kinds)}, {len(self._shops.late)} late behind the repartition, "
            f"{len(self._windows.groups)} + {len(self._shops.groups)} windows, {len(self._visits.groups)} sessions, "
            f"{sum(map(len, self.evidence.held.values()))} entries of open ones in stores, "
            f"{len(self._logs[self._topics.running])} updates, "
            f"{self.evidence.aborted} records of aborted transactions, "
            f"{sum(k.mid_work for k in self.evidence.kills)} of {len(self.evidence.kills)} kills mid-work, "
            f"{sum(k.in_transaction for k in self.evidence.kills)} in an open transaction, "
            f"{_stood_still(self.evidence)}, "
            f"failpoints {dict(self.evidence.reached)}, missed {dict(self.evidence.missed)}, "
            f"disturbances {dict(self.evidence.disturbances)}, stores wiped {dict(self.evidence.wiped)}"
        )


def _entry(columns: dict[str, Any], key: str) -> tuple[At, tuple[int, int, int]]:
    window = columns[key], millis(columns["window_start"]), millis(columns["window_end"])
    return window, (columns["n"], columns["total"], columns["high"])


def _sequences(items: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = defaultdict(list)
    for of, item in items:
        found[of].append(item)
    return found


def _stood_still(evidence: Evidence) -> str:
    of_workers = [stall for stall in evidence.stalls if not any(map(stall.covers, evidence.restarts_s))]
    gaps = gaps_s(of_workers, [kill.at_s for kill in evidence.kills]) or [0.0]
    longest = max((stall.length_s for stall in evidence.stalls), default=0.0)
    return (
        f"a partition with work went on {median(gaps):.1f} s after a kill in the middle and {max(gaps):.1f} s at most, "
        f""
        f"and stood still for {longest:.1f} s at most with all that happened"
    )


def checks(findings: Iterable[str]) -> list[str]:
    """The universal checks that found these."""
    return sorted({CHECKS[finding.partition(":")[0]] for finding in findings} - {"exit"})


def vacuity(evidence: Evidence) -> list[str]:
    """Why the run proves nothing (I7), if so."""
    found = []
    hits = sum(kill.mid_work for kill in evidence.kills)
    if not evidence.kills or hits < 0.8 * len(evidence.kills):
        found.append(f"only {hits} of {len(evidence.kills)} kills hit with work done before and work left")
    cut = sum(kill.in_transaction for kill in evidence.kills)
    if 3 * cut < len(evidence.kills):  # the nemesis aims two strikes of three, some of them at two
        found.append(f"only {cut} of {len(evidence.kills)} kills hit a worker with a transaction seen open")
    if evidence.aborted <= 0:
        found.append("no record of an aborted transaction: no kill cut one")
    if len(evidence.missed) > len(evidence.reached):
        found.append(f"only {len(evidence.reached)} failpoints were reached, not {', '.join(evidence.missed)}")
    if not any(evidence.held.values()):
        found.append("no window was open when all was consumed")
    if missing := evidence.planned - evidence.disturbances:
        found.append(f"of the disturbances {dict(missing)} did not happen")
    if evidence.disturbances["wipe"] and not evidence.wiped.keys() - {left_alone.__name__}:
        found.append("no store was on disk when state was to be wiped")
    for point, planned in evidence.points.items():
        if planned >= TIMES and evidence.reached[point] < TIMES:
            found.append(f"failpoint {point} was reached {evidence.reached[point]} times, not {TIMES}")
    return found


def _where(record: Record) -> Where:
    return record.topic, record.partition, record.offset


def _by_partition(log: Iterable[Record]) -> dict[int, list[tuple[object, ...]]]:
    found: dict[int, list[tuple[object, ...]]] = defaultdict(list)
    for record in log:
        found[record.partition].append(tuple(record[1:6]))
    return found


def _few(found: Iterator[str]) -> list[str]:
    every = list(found)
    return every[:SHOWN] + ([f"... and {len(every) - SHOWN} more"] if len(every) > SHOWN else [])
