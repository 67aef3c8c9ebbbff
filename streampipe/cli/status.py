"""What workers do, shown while they do it: a line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from threading import Event, Thread

from rich.live import Live
from rich.text import Text

from streampipe.cli.output import Output, duration
from streampipe.observe.summary import Snapshot

LOOK_EVERY_S = 1.0
LOG_EVERY_S = 5.0


class StatusLine:
    """Shows the snapshots that `look` gives, on stderr, until closed.

    The rate counts records of `topics`; with `total`, the records of them that there are to process, it says how
    much is left and for how long.
    """

    def __init__(
        self, out: Output, look: Callable[[], Snapshot], topics: Collection[str], total: int | None = None
    ) -> None:
        self._out, self._look, self._topics, self._total = out, look, topics, total
        self._stop = Event()
        self._recent: list[tuple[float, int]] = []
        self._thread = Thread(target=self._run, name="status", daemon=True)

    def __enter__(self) -> StatusLine:
        if not self._out.quiet:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        if not self._out.stderr.is_terminal:
            self._log()
            return
        with Live(console=self._out.stderr, transient=True, auto_refresh=False) as live:
            while not self._stop.wait(LOOK_EVERY_S):
                live.update(Text(self.line(self._look(), time.monotonic())), refresh=True)

    def _log(self) -> None:
        before = ""
        while not self._stop.wait(LOG_EVERY_S):
            line = self.line(self._look(), time.monotonic())
            if line != before:
                self._out.note(line)
            before = line

    def line(self, snapshot: Snapshot, now_s: float) -> str:
        """The line for a snapshot; rates are those of the last ten seconds."""
        done = snapshot.records(self._topics)
        self._recent = [*[r for r in self._recent if now_s - r[0] <= 10.0], (now_s, done)]
        (since, before), span = self._recent[0], now_s - self._recent[0][0]
        rate = (done - before) / span if span > 0 and since < now_s else 0.0
        fates = ", ".join(f"{count:,} {fate}" for fate, count in snapshot.by_outcome().items() if count or fate == "ok")
        parts = [snapshot.state, f"{rate:,.0f} records/s", fates]
        if self._total is not None:
            left = max(0, self._total - done)
            share = 100.0 * done / self._total if self._total else 100.0
            parts.append(f"{share:.1f} % of {self._total:,}" + (f", {duration(left / rate)} left" if rate else ""))
        else:
            p95 = snapshot.p95_s()
            parts += [f"P95 {duration(p95)}"] if p95 is not None else []
            if snapshot.lag_records is not None:
                parts.append(f"lag {snapshot.lag_records:,} records, {duration(snapshot.lag_seconds)}")
        return " | ".join(parts)


def summarize(
    out: Output, snapshot: Snapshot, topics: Collection[str], *, as_json: bool, show_latency: bool = True
) -> None:
    """The end of a run: records by topic and fate, records a second, latency."""
    rate = snapshot.rate(topics)
    p95 = snapshot.p95_s() if show_latency else None
    if as_json:
        out.json({
            "records": snapshot.records(topics), **snapshot.by_outcome(),
            "topics": {topic: _fates(counts) for topic, counts in snapshot.outcomes.items()},
            "records_per_s": None if rate is None else round(rate, 1),
            "latency_p95_s": None if p95 is None else round(p95, 4),
        })  # fmt: skip
        return
    rows = [{"topic": topic, "records": sum(c), **_fates(c)} for topic, c in sorted(snapshot.outcomes.items())]
    headings = {"topic": "input", "records": "records", "ok": "ok", "filtered": "filtered", "dlq": "dlq"}
    out.rows({**headings, "dropped": "dropped"}, rows)
    out.line(
        f"{snapshot.records(topics):,} records"
        + (f", {rate:,.0f} records/s" if rate is not None else "")
        + (f", P95 latency {duration(p95)}" if p95 is not None else "")
    )


def _fates(counts: list[int]) -> dict[str, int]:
    return Snapshot(outcomes={"": counts}).by_outcome()
