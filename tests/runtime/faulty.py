"""A broker that fails on demand: a real one, with a script of errors by method."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from streampipe.brokers.port import Broker


@dataclass
class After:
    """The call takes effect, then its answer is lost."""

    error: Exception


@dataclass
class Script:
    """What the next calls of a method do: `script.on("producer.commit", error, None, After(error))`."""

    calls: Counter[str] = field(default_factory=Counter)
    _steps: defaultdict[str, deque[Exception | After | None]] = field(default_factory=lambda: defaultdict(deque))
    _hooks: dict[str, Callable[[], object]] = field(default_factory=dict)

    def on(self, method: str, *steps: Exception | After | None) -> None:
        self._steps[method].extend(steps)

    def forget(self, method: str) -> None:
        self._steps.pop(method, None)

    def before(self, method: str, hook: Callable[[], object]) -> None:
        self._hooks[method] = hook

    def play(self, method: str, call: Callable[[], Any]) -> Any:
        self.calls[method] += 1
        if method in self._hooks:
            self._hooks[method]()
        step = self._steps[method].popleft() if self._steps[method] else None
        if isinstance(step, Exception):
            raise step
        answer = call()
        if isinstance(step, After):
            raise step.error
        return answer


class _Client:
    def __init__(self, kind: str, client: Any, script: Script) -> None:
        self._kind, self._client, self._script = kind, client, script

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *a, **k: self._script.play(f"{self._kind}.{name}", lambda: method(*a, **k))


class _Broker:
    def __init__(self, broker: Broker, script: Script) -> None:
        self._broker, self._script = broker, script
        self.name = broker.name

    def __getattr__(self, kind: str) -> Any:
        make = getattr(self._broker, kind)
        return lambda *a, **k: _Client(kind, self._script.play(f"broker.{kind}", lambda: make(*a, **k)), self._script)


def faulty(broker: Broker, script: Script) -> Broker:
    """`broker`, following the script."""
    return cast("Broker", _Broker(broker, script))
