"""The checker of the chaos tests can fail: every rule goes red when the evidence is tampered with, or the guarantee."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streampipe.records import Record
from tests.chaos.driver import finish, gather
from tests.chaos.evidence import Evidence, partitions_of
from tests.chaos.feeder import Feeder
from tests.chaos.mutants import Verdict
from tests.chaos.oracle import CHECKS, ERRORS, Oracle, Values, vacuity
from tests.chaos.place import Scenario, open_place
from tests.chaos.processor import EVENT, Topics
from tests.chaos.traffic import Traffic
from tests.chaos.workers import Workers, await_true

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

Log = list[Record]
Tamper = Callable[[Evidence], Evidence]


def in_log(topic: Callable[[Topics], str], change: Callable[[Log], Log]) -> Tamper:
    """Change what is in a topic, for the second pass and the observer alike."""

    def tamper(evidence: Evidence) -> Evidence:
        name = topic(evidence.topics)
        changed = {name: change(list(evidence.logs[name]))}
        return replace(evidence, logs=evidence.logs | changed, observed=evidence.observed | changed)

    return tamper


def lose(log: Log) -> Log:
    del log[len(log) // 2]
    return log


def repeat(log: Log) -> Log:
    at = len(log) // 2
    return [*log[: at + 1], *log[at:]]


def swap_values(log: Log) -> Log:
    """Two neighbours of one key trade places."""
    i, j = next((i, j) for i, a in enumerate(log) for j, b in enumerate(log[i + 1 :], i + 1) if a.key == b.key)
    log[i], log[j] = log[i]._replace(value=log[j].value), log[j]._replace(value=log[i].value)
    return log


def spoil(log: Log) -> Log:
    """Another value that decodes: the last byte is a varint of its own."""
    at = len(log) // 2
    value = log[at].value or b""
    log[at] = log[at]._replace(value=value[:-1] + bytes([value[-1] ^ 0x02]))
    return log


def letter_of_another(log: Log) -> Log:
    others = [(n, b"999999" if n == f"{ERRORS}offset" else v) for n, v in log[0].headers]
    return [*log, log[0]._replace(headers=others)]


def letter_of_another_class(log: Log) -> Log:
    log[0] = log[0]._replace(headers=[(n, b"unknown" if n == f"{ERRORS}class" else v) for n, v in log[0].headers])
    return log


def letter_for_another_rule(log: Log) -> Log:
    """A negative time instead of one that is too far ahead, or the like."""
    at = next(i for i, record in enumerate(log) if (f"{ERRORS}class", b"validation") in record.headers)
    log[at] = log[at]._replace(headers=[(n, b"key" if n == f"{ERRORS}rule" else v) for n, v in log[at].headers])
    return log


def letter_with_other_bytes(log: Log) -> Log:
    log[0] = log[0]._replace(value=b"tampered")
    return log


def without_a_tombstone(log: Log) -> Log:
    at = next(i for i, record in enumerate(log) if record.value is None)
    return log[:at] + log[at + 1 :]


def back_in_time(evidence: Evidence) -> Evidence:
    """Two updates of one window in the wrong order."""
    name, decode = evidence.topics.running, Values(evidence.schemas)
    log, first = list(evidence.logs[name]), dict[tuple[object, object], int]()
    for at, record in enumerate(log):
        value = decode(record.value or b"")
        before = first.setdefault((value["k"], value["window_start"]), at)
        if before != at:
            log[before], log[at] = log[at], log[before]
            break
    return replace(evidence, logs=evidence.logs | {name: log}, observed=evidence.observed | {name: log})


def one_short(evidence: Evidence) -> Evidence:
    tp = next(tp for tp in evidence.committed if tp.topic == evidence.topics.input)
    return replace(evidence, committed=evidence.committed | {tp: evidence.committed[tp] - 1})


def left_open(evidence: Evidence) -> Evidence:
    tp = next(iter(evidence.stable_ends))
    return replace(evidence, stable_ends=evidence.stable_ends | {tp: evidence.ends[tp] - 1})


def aborted_read(evidence: Evidence) -> Evidence:
    name = evidence.topics.totals
    seen = evidence.observed[name]
    return replace(evidence, observed=evidence.observed | {name: [*seen, seen[0]._replace(offset=10**9)]})


def in_store(name: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Tamper:
    """Change what a store held."""

    def tamper(evidence: Evidence) -> Evidence:
        return replace(evidence, held=evidence.held | {name: change(evidence.held[name])})

    return tamper


TAMPERED: list[tuple[str, str, Tamper]] = [
    ("echo", "lost", in_log(lambda t: t.echo, lose)),
    ("echo", "repeated", in_log(lambda t: t.echo, repeat)),
    ("echo", "out of order", in_log(lambda t: t.echo, swap_values)),
    ("echo", "another value", in_log(lambda t: t.echo, spoil)),
    ("totals", "lost", in_log(lambda t: t.totals, lose)),
    ("totals", "repeated", in_log(lambda t: t.totals, repeat)),
    ("totals", "another value", in_log(lambda t: t.totals, spoil)),
    ("running", "repeated", in_log(lambda t: t.running, repeat)),
    ("running", "last one lost", in_log(lambda t: t.running, lambda log: log[:-1])),
    ("running", "another value", in_log(lambda t: t.running, spoil)),
    ("running", "backwards", back_in_time),
    ("visits", "lost", in_log(lambda t: t.visits, lose)),
    ("visits", "repeated", in_log(lambda t: t.visits, repeat)),
    ("visits", "another value", in_log(lambda t: t.visits, spoil)),
    ("shops", "repeated", in_log(lambda t: t.shops, repeat)),
    ("shops", "another value", in_log(lambda t: t.shops, spoil)),
    ("repartition", "lost", in_log(lambda t: t.repartition, lose)),
    ("repartition", "repeated", in_log(lambda t: t.repartition, repeat)),
    ("dead letters", "lost", in_log(lambda t: t.dead, lambda log: log[1:])),
    ("dead letters", "repeated", in_log(lambda t: t.dead, lambda log: [*log, log[0]])),
    ("dead letters", "of a good record", in_log(lambda t: t.dead, letter_of_another)),
    ("dead letters", "another class", in_log(lambda t: t.dead, letter_of_another_class)),
    ("dead letters", "another rule", in_log(lambda t: t.dead, letter_for_another_rule)),
    ("dead letters", "other bytes", in_log(lambda t: t.dead, letter_with_other_bytes)),
    ("stores", "lost", in_store("sum-by-key", lambda held: held[1:])),
    ("stores", "repeated", in_store("run-by-key", lambda held: [*held, held[0]])),
    ("stores", "another value", in_store("visits-by-key", lambda held: [held[0] | {"total": -1}, *held[1:]])),
    ("stores", "empty", in_store("sum-by-shop", lambda _: [])),
    ("changelog", "open window", in_log(lambda t: t.changelogs[0], without_a_tombstone)),
    ("changelog", "empty", in_log(lambda t: t.changelogs[2], lambda _: [])),
    ("committed", "one short", one_short),
    ("open transactions", "left open", left_open),
    ("observer", "aborted read", aborted_read),
    ("unexpected", "a worker that crashed", lambda e: replace(e, unexpected=["slot 0 ended"])),
]


@pytest.mark.parametrize(("rule", "tamper"), [pytest.param(r, t, id=f"{r}: {what}") for r, what, t in TAMPERED])
def test_every_rule_notices(embedded: Evidence, rule: str, tamper: Tamper) -> None:
    assert Oracle(embedded).findings() == []
    assert any(finding.startswith(f"{rule}: ") for finding in Oracle(tamper(embedded)).findings())


def test_every_rule_is_tampered_with_and_part_of_a_check() -> None:
    assert {rule for rule, _, _ in TAMPERED} == CHECKS.keys() - {"injection"}


def test_only_what_the_oracle_found_counts_as_seen() -> None:
    assert Verdict(1, ["shops: twice", "echo: lost", "totals: lost"]).seen == ["I2", "I3"]
    assert Verdict(1, ["unexpected: slot 0 ended"]).seen == []
    assert str(Verdict(1, [], "no progress")) == "seed 1 did not finish: no progress"


def test_an_input_that_was_not_consumed_shows_everywhere(embedded: Evidence) -> None:
    log = embedded.logs[embedded.topics.input]
    last = next(r for r in reversed(log) if not r.headers)
    more = {embedded.topics.input: [*log, last._replace(offset=10**9)]}
    findings = Oracle(replace(embedded, logs=embedded.logs | more)).findings()
    assert {"echo", "totals", "running", "visits", "repartition"} <= {finding.partition(":")[0] for finding in findings}


def test_a_run_without_effect_proves_nothing(embedded: Evidence) -> None:
    assert vacuity(embedded) == []
    assert vacuity(replace(embedded, kills=[]))
    after_the_work = [replace(kill, committed=kill.total) for kill in embedded.kills]
    assert one_reason(replace(embedded, kills=after_the_work)).startswith("only 0 of")
    between_transactions = [replace(kill, in_transaction=False) for kill in embedded.kills]
    assert one_reason(replace(embedded, kills=between_transactions)).endswith("seen open")
    assert one_reason(replace(embedded, aborted=0)).startswith("no record")
    assert one_reason(replace(embedded, held={})).startswith("no window was open")
    assert one_reason(replace(embedded, planned=Counter(zombie=1))).endswith("did not happen")
    seldom = replace(embedded, points=Counter({"after-begin": 6}), reached=Counter({"after-begin": 4}))
    assert one_reason(seldom) == "failpoint after-begin was reached 4 times, not 5"
    spared = replace(embedded, disturbances=Counter(wipe=1), wiped=Counter(left_alone=16))
    assert one_reason(spared).startswith("no store was on disk")


def one_reason(evidence: Evidence) -> str:
    [reason] = vacuity(evidence)
    return reason


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_only_at_least_once_shows_duplicates_after_a_kill_between_output_and_commit(
    guarantee: str, seed: int, tmp_path: Path
) -> None:
    scenario = Scenario(f"local:{tmp_path / 'broker.db'}", tmp_path, records=1_000, kills=1, seed=seed, slots=1)
    findings = killed_between_output_and_commit(scenario, guarantee)
    if guarantee == "exactly-once":
        assert findings == []
    else:
        assert any(finding.startswith("echo: ") for finding in findings)


def killed_between_output_and_commit(scenario: Scenario, guarantee: str) -> list[str]:
    """Findings after a worker was killed that had written output, but had committed nothing."""
    flags = ["--at-least-once"] if guarantee == "at-least-once" else []
    with ExitStack() as stack:
        place = open_place(scenario, stack)
        schema_id = place.registry.register(f"{place.topics.input}-value", EVENT)
        records = iter(Traffic(scenario.seed, scenario.records, scenario.partitions, schema_id))
        feeder = Feeder(place.broker, place.topics.input, records, 1e6)
        feeder.start()
        feeder.finish()
        echo = partitions_of(place.admin, [place.topics.echo])
        # 2.9 s: as long as output is still produced before the commit, a fifth of the transaction's timeout
        victim = Workers(1, scenario.folder, place.environment, *flags, "--commit-interval", "2900")
        stack.callback(victim.close)
        victim.start(0)
        await_true(lambda: sum(place.admin.offsets(echo, "latest", "read_uncommitted").values()) > 0, "output", victim)
        victim.kill(0)
        assert place.committed() == 0, "killed too late"
        heir = Workers(1, scenario.folder, place.environment, *flags)
        stack.callback(heir.close)
        held = finish(place, heir, scenario.finish_within_s)
        return Oracle(replace(gather(place, None, [], heir), held=held)).findings()
