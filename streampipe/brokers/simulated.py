"""A broker whose time, faults and order of events a test decides: the embedded log on a clock that only it moves.

Each worker has a view of it (`SimulatedBroker.of`). A call of a worker to the broker is an effect; it is noted in the
trace, and faults strike there: the worker dies before or after it, its answer is lost, the broker is not reached, or
the call is `delayed` until the group had time to give the worker up. What goes wrong on a network comes to these: a
request that is lost is `unavailable`, one that is delivered twice is a `lost-answer` whose call is made again, one that
comes after those of others is `delayed`. Calls of one worker never overtake each other: each waits for its answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from streampipe.brokers.local import LocalBroker
from streampipe.brokers.port import Broker, GroupInfo
from streampipe.errors import Unavailable
from streampipe.records import ProduceBatch, RecordBatch, TopicPartition

Kind = Literal["crash-before", "crash-after", "unavailable", "lost-answer", "delayed"]
SESSION_S, TRANSACTION_S = 3.0, 2.0
_NETWORK = frozenset({"poll", "committed", "commit", "produce", "flush", "begin", "send_offsets", "offsets"})
"""Calls that may not reach the broker."""
_UNKNOWN = frozenset({"producer.commit", "producer.flush", "producer.send_offsets", "consumer.commit"})
"""Calls whose outcome may stay unknown, or that may be made twice."""


class Crashed(BaseException):
    """The worker is dead: whatever it still wants to do has no effect. No error that code may handle."""


class VirtualClock:
    """A clock that stands still until it is moved, or somebody sleeps."""

    def __init__(self, now_ms: int) -> None:
        self._start_ms, self._passed_s = now_ms, 0.0

    def now_ms(self) -> int:
        """Wall-clock time in milliseconds since the epoch."""
        return self._start_ms + round(self._passed_s * 1000)

    def monotonic_s(self) -> float:
        """Seconds since the beginning."""
        return self._passed_s

    def sleep_s(self, seconds: float) -> None:
        """Time passes at once."""
        self._passed_s += max(0.0, seconds)


@dataclass(slots=True)
class Trace:
    """What workers asked of the broker, and what it answered, in order: two runs of one hash were the same run."""

    lines: list[str] = field(default_factory=list)

    def hash(self) -> str:
        """SHA-256 of all lines."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


class SimulatedBroker:
    """Topics in a file of `folder`, seen by workers through `of`, and by the test through `inside`, without faults.

    `fault` is asked at each effect, by its number and the name of the call, what is to happen to it.
    """

    def __init__(self, folder: Path, clock: VirtualClock, fault: Callable[[int, str], Kind | None]) -> None:
        self.inside = LocalBroker(
            folder / "broker.db", session_timeout_s=SESSION_S, transaction_timeout_s=TRANSACTION_S, clock=clock,
            heartbeats=False,
        )  # fmt: skip
        self.trace = Trace()
        self.effects = 0
        self.struck: list[tuple[int, str, Kind]] = []
        """Faults so far: number and name of the effect, and what happened to it."""
        self.meanwhile: Callable[[], None] = lambda: clock.sleep_s(2 * SESSION_S)
        """What happens while a call is delayed."""
        self._clock, self._fault = clock, fault
        self._clients = 0

    def of(self, worker: str) -> Broker:
        """The broker as this worker sees it. One that crashed is dead for good: another one needs its own view."""
        return cast(Broker, _View(self, worker))

    def client(self) -> int:
        """A number for a client, so that the order of members does not hang on random ids."""
        self._clients += 1
        return self._clients

    def effect(self, view: _View, name: str, asked: object, call: Callable[[], Any]) -> Any:
        """Let a call, which asks for `asked`, happen, or what is to happen to it."""
        if view.dead:
            raise Crashed
        self.effects += 1
        kind = self._fault(self.effects, name)
        if kind is not None and not possible(name, kind):
            kind = None
        self.trace.lines.append(f"{self._clock.now_ms()} {view.worker} {name} {_told(asked)} {kind or ''}")
        if kind is not None:
            self.struck.append((self.effects, name, kind))
        view.dead = kind in ("crash-before", "crash-after")
        if kind == "crash-before":
            raise Crashed
        if kind == "unavailable":
            raise Unavailable(f"{name}: the simulated broker was not reached")
        if kind == "delayed":
            self.meanwhile()
        answer = call()
        self.trace.lines.append(_told(answer))
        if kind == "crash-after":
            raise Crashed
        if kind == "lost-answer":
            raise Unavailable(f"{name}: the answer of the simulated broker was lost")
        return answer


def possible(name: str, kind: Kind) -> bool:
    """Whether this can happen to a call: what an answer hands over once must not be lost, a local call always works."""
    if kind == "lost-answer":
        return name in _UNKNOWN
    return kind != "unavailable" or name.rpartition(".")[2] in _NETWORK


def _told(value: object) -> str:
    """What a call was given or answered, as the trace tells it. Listeners, clients and tokens have nothing to tell."""
    match value:
        case ProduceBatch():
            digest = _digest(value.keys, value.values, value.timestamps, value.partitions, value.headers)
            return f"{value.topic} {digest}"
        case RecordBatch():
            headers = map(value.headers, range(len(value)))
            digest = _digest(value.partitions, value.offsets, value.timestamps, value.keys, value.values, headers)
            return f"{value.topic} {digest}"
        case TopicPartition() | str() | int() | float():
            return str(value)
        case Mapping():
            return f"{{{', '.join(sorted(f'{_told(name)}: {_told(held)}' for name, held in value.items()))}}}"
        case Set():
            return f"{{{', '.join(sorted(map(_told, value)))}}}"
        case Sequence():
            return f"[{', '.join(map(_told, value))}]"
    return ""


def _digest(*columns: Iterable[object] | None) -> str:
    told = repr([None if column is None else list(column) for column in columns])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


class _View:
    """A broker of one worker."""

    def __init__(self, broker: SimulatedBroker, worker: str) -> None:
        self._broker, self.worker, self.dead = broker, worker, False
        self.name = f"simulated:{worker}"

    def __getattr__(self, kind: str) -> Any:
        def make(*arguments: Any, **options: Any) -> Any:
            if "client_id" in options:
                options["client_id"] += f"-{self._broker.client():06}"
            opened = self._broker.effect(
                self, f"broker.{kind}", (arguments, options),
                lambda: getattr(self._broker.inside, kind)(*arguments, **options),
            )  # fmt: skip
            return _Client(self._broker, self, kind, opened)

        return make


class _Client:
    """A client whose calls are effects."""

    def __init__(self, broker: SimulatedBroker, view: _View, kind: str, client: Any) -> None:
        self._broker, self._view, self._kind, self._client = broker, view, kind, client

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            answer = self._broker.effect(
                self._view, f"{self._kind}.{name}", (arguments, options), lambda: method(*arguments, **options)
            )
            return _as_they_called_themselves(answer) if name == "describe_group" else answer

        return call


def _as_they_called_themselves(group: GroupInfo) -> GroupInfo:
    members = [replace(member, client=member.client.rpartition("-")[0]) for member in group.members]
    return replace(group, members=tuple(members))
