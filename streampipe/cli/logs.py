"""Log records as lines on standard error, a few of each kind."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from streampipe.cli.output import Output

SHOWN, PERIOD_S = 3, 60.0
"""So many lines of a kind are shown in so many seconds: a broker that is away is reported ten times a second."""
KINDS = 1_000
"""Kinds of lines remembered; beyond, all are forgotten."""
_NUMBERS = re.compile(r"\d+")


@dataclass(slots=True)
class _Kind:
    since: float
    shown: int = 0
    hidden: int = 0


class LogLines(logging.Handler):
    """Writes through the console that may be showing a status line there.

    Lines that differ in numbers alone are of one kind. Of a kind, three are shown in a minute; the first one of the
    next minute says how many were not. Debugging shows all.
    """

    def __init__(self, out: Output, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._out, self._now_s = out, now_s
        self._kinds: dict[str, _Kind] = {}
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one, or count it as hidden."""
        text = self.format(record)
        hidden = 0 if record.levelno == logging.DEBUG else self._hidden(_NUMBERS.sub("0", text))
        if hidden is not None:
            more = f" ({hidden:,} more like it since)" if hidden else ""
            self._out.stderr.print(text + more, markup=False)

    def _hidden(self, kind: str) -> int | None:
        """How many of a kind were hidden before this one, which is to be shown; None: it is to be hidden."""
        now = self._now_s()
        if len(self._kinds) >= KINDS:
            self._kinds.clear()
        seen = self._kinds.setdefault(kind, _Kind(now))
        hidden = 0
        if now - seen.since >= PERIOD_S:
            hidden = seen.hidden
            self._kinds[kind] = seen = _Kind(now)
        if seen.shown < SHOWN:
            seen.shown += 1
            return hidden
        seen.hidden += 1
        return None
