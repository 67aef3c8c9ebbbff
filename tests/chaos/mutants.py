"""Workers with one promise broken on purpose: `python -m tests.chaos.mutants` shows that the checks see each of them.

`CHAOS_MUTANT` says which one a worker is. The run that they all are compared with, nothing broken, must be green.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streampipe.brokers.kafka import KafkaBroker
from streampipe.brokers.kafka.consumer import KafkaConsumer
from streampipe.brokers.kafka.producer import KafkaProducer
from streampipe.brokers.port import Admin, At, Isolation
from streampipe.records import TopicPartition
from streampipe.runtime import commit, session
from streampipe.runtime.commit import ExactlyOnce
from streampipe.runtime.restore import Restorer
from streampipe.runtime.session import Session
from streampipe.testing.stack import Stack
from tests.chaos.driver import run
from tests.chaos.oracle import Oracle, checks
from tests.chaos.place import Scenario

VARIABLE = "CHAOS_MUTANT"
DROP_EVERY = 50
SEEDS = 3
"""A broken promise has to show in one of so many runs: some need a zombie to wake up at the wrong moment."""


def offsets_after_the_transaction() -> None:
    """Output is committed in one transaction, the offsets in the next."""

    def _commit(self: Any, output: Any, offsets: Any, metadata: object) -> None:
        self._produce(output)
        self._producer.commit()
        self._producer.begin()
        self._producer.send_offsets(offsets, metadata)
        self._producer.commit()
        self._begun = False

    ExactlyOnce._commit = _commit  # type: ignore[method-assign]


def revocation_without_commit() -> None:
    """Partitions that go leave their output behind in the open transaction, which is committed without them."""
    Session.on_revoked = lambda self, partitions: self._let_go(set(partitions))  # type: ignore[method-assign]


def metadata_of_nobody() -> None:
    """Offsets are sent with what the consumer was before it joined, which no generation fences."""

    kept: list[object] = []

    def group_metadata(self: KafkaConsumer) -> object:
        if not kept:
            stranger = KafkaBroker(os.environ["STREAMPIPE_BROKER"].removeprefix("kafka:"))
            kept.append(stranger.consumer(os.environ["CHAOS_PROCESSOR"])._consumer.consumer_group_metadata())
        return kept[0]

    KafkaConsumer.group_metadata = group_metadata  # type: ignore[method-assign]


def produce_error_swallowed() -> None:
    """A batch that could not be produced is forgotten."""
    produce, counted = KafkaProducer.produce, iter(range(2**62))

    def forgetful(self: Any, batch: Any) -> None:
        if next(counted) % DROP_EVERY:
            produce(self, batch)

    KafkaProducer.produce = forgetful  # type: ignore[method-assign]


def state_kept_after_an_abort() -> None:
    """What was never committed stays in the state."""
    reset = Session.reset

    def keeping(self: Any, *, new_producer: bool) -> None:
        task = self.task
        reset(self, new_producer=new_producer)
        self.task = task

    Session.reset = keeping  # type: ignore[method-assign]


def dead_letters_outside() -> None:
    """Dead letters go out by a producer without transactions."""
    plain: dict[str, Any] = {}

    def _produce(producer: Any, output: Any) -> None:
        for batch in (*output.records, *output.changelog):
            producer.produce(batch)
        if output.dead_letters:
            if not plain:
                plain["producer"] = KafkaBroker(os.environ["STREAMPIPE_BROKER"].removeprefix("kafka:")).producer()
            for batch in output.dead_letters:
                plain["producer"].produce(batch)
            plain["producer"].flush()

    commit._produce = _produce


class _Stable:
    """An admin that knows no end of a partition but the last stable offset."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def __getattr__(self, name: str) -> Any:
        return getattr(self._admin, name)

    def offsets(self, partitions: Collection[TopicPartition], at: At, _: Isolation = "read_committed") -> Any:
        return self._admin.offsets(partitions, at)


def restore_up_to_the_last_stable_offset() -> None:
    """State that was committed above a transaction which is open counts as none."""
    made: Any = Restorer
    session.Restorer = lambda broker, admin, *rest: made(broker, _Stable(admin), *rest)  # type: ignore[assignment, attr-defined]


@dataclass(frozen=True)
class Mutant:
    """What is broken, and what has to happen for it to show."""

    install: Callable[[], None]
    happens: dict[str, Any] = field(default_factory=dict)


_BUSY = {"zombies": 6, "restarts": 2}
MUTANTS = {
    "nothing": Mutant(lambda: None, {"zombies": 2, "failpoints": 4, "strangers": 2, "wipes": 1}),
    "offsets-after-the-transaction": Mutant(
        offsets_after_the_transaction, {"failpoints": 4, "points": ("after-commit",)}
    ),
    "revocation-without-commit": Mutant(
        revocation_without_commit, {"visitors": 12, "stops": 6, "kills": 6, "pace_s": 10.0}
    ),
    "metadata-of-nobody": Mutant(metadata_of_nobody, {"zombies": 12}),
    "produce-error-swallowed": Mutant(produce_error_swallowed),
    "state-kept-after-an-abort": Mutant(state_kept_after_an_abort, _BUSY),
    "dead-letters-outside": Mutant(dead_letters_outside),
    "restore-up-to-the-last-stable-offset": Mutant(restore_up_to_the_last_stable_offset, {"strangers": 4}),
}


def install() -> None:
    """Become the mutant that the environment names."""
    MUTANTS[os.environ.get(VARIABLE) or "nothing"].install()


@dataclass(frozen=True)
class Verdict:
    """What the oracle found with a seed, or why the run did not get to its end, which is no proof of anything."""

    seed: int
    findings: list[str]
    stuck: str = ""

    @property
    def seen(self) -> list[str]:
        """The universal checks that are red."""
        return checks(self.findings)

    def __str__(self) -> str:
        if self.stuck:
            return f"seed {self.seed} did not finish: {self.stuck[:150]}"
        by = f" by {', '.join(self.seen)}" if self.seen else ""
        return f"seed {self.seed} is red{by}: {self.findings[0][:150]}" if self.findings else "green"


def main() -> int:
    """Run each of them; 0 if the oracle saw all of them but the one that breaks nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.mutants", description=__doc__)
    parser.add_argument("--only", choices=MUTANTS, action="append", help="this one; may be given several times")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    wrong = [name for name in given.only or MUTANTS if not _as_it_should_be(name, given.seed)]
    return int(bool(wrong))


def _as_it_should_be(name: str, first_seed: int) -> bool:
    for seed in range(first_seed, first_seed + (1 if name == "nothing" else SEEDS)):
        verdict = _run(name, seed)
        sys.stdout.write(f"{name}: {verdict}\n")
        sys.stdout.flush()
        if verdict.seen:
            return name != "nothing"
    return name == "nothing" and not verdict.findings and not verdict.stuck


def _run(name: str, seed: int) -> Verdict:
    folder = Path(tempfile.mkdtemp(prefix="streampipe-mutant-"))
    try:
        with Stack() as stack:
            scenario = Scenario(
                f"kafka:{stack.bootstrap}", folder, seed=seed, stack=stack, mutant=name,
                **({"records": 30_000, "kills": 8} | MUTANTS[name].happens),
            )  # fmt: skip
            evidence = run(scenario)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return Verdict(seed, [], str(error))
    finally:
        shutil.rmtree(folder)
    return Verdict(seed, Oracle(evidence).findings())


if __name__ == "__main__":
    sys.exit(main())
