"""What every `StateStore` does, as a machine that runs it beside a dictionary."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streampipe.state.port import StateStore

keys = st.binary(max_size=3)
values = st.none() | st.binary(max_size=3)


class StateStoreMachine(RuleBasedStateMachine):
    """Subclasses say how to `make` a store."""

    make: Callable[[], StateStore]

    def __init__(self) -> None:
        super().__init__()
        self.store = type(self).make()
        self.model: dict[bytes, bytes] = {}

    def _put(self, key: bytes, value: bytes | None) -> None:
        self.model.pop(key, None)
        if value is not None:
            self.model[key] = value

    @rule(key=keys, value=values)
    def put(self, key: bytes, value: bytes | None) -> None:
        self.store.put(key, value)
        self._put(key, value)

    @rule(entries=st.lists(st.tuples(keys, values), max_size=5))
    def put_many(self, entries: list[tuple[bytes, bytes | None]]) -> None:
        self.store.put_many([k for k, _ in entries], [v for _, v in entries])
        for key, value in entries:
            self._put(key, value)

    @rule(wanted=st.lists(keys, max_size=5))
    def get(self, wanted: list[bytes]) -> None:
        assert self.store.get_many(wanted) == [self.model.get(k) for k in wanted]
        assert [self.store.get(k) for k in wanted] == [self.model.get(k) for k in wanted]

    @rule(start=st.none() | keys, end=st.none() | keys, key=keys)
    def a_range_is_a_snapshot(self, start: bytes | None, end: bytes | None, key: bytes) -> None:
        found = self.store.range(start, end)
        within = [k for k in sorted(self.model) if (start is None or k >= start) and (end is None or k < end)]
        expected = [(k, self.model[k]) for k in within]
        self.put(key, b"later")
        assert list(found) == expected

    @rule(size=st.integers(1, 3), key=keys)
    def a_scan_is_a_snapshot_of_everything(self, size: int, key: bytes) -> None:
        found, expected = self.store.scan(size), dict(self.model)
        self.put(key, b"later")
        parts = list(found)
        assert all(len(keys) == len(values) <= size for keys, values in parts)
        entries = [entry for part in parts for entry in zip(*part, strict=True)]
        assert sorted(entries) == sorted(expected.items())

    @rule()
    def clear(self) -> None:
        self.store.clear()
        self.model.clear()

    @invariant()
    def equal(self) -> None:
        assert len(self.store) == len(self.model)
        assert list(self.store.range()) == sorted(self.model.items())

    def teardown(self) -> None:
        self.store.close()
