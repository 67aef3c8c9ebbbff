"""CPU time and memory of a process and everything it starts, read from /proc."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_SEARCH_S = 0.5
"""How often to look for new processes: a walk through all of /proc takes time from those who are measured."""


class ProcessTree:
    """A process and its descendants; what has ended keeps counting."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._cpu_s: dict[int, float] = {}
        self._peak_bytes: dict[int, int] = {}
        self._searched = 0.0

    def cpu_s(self) -> float:
        """CPU seconds used so far, user and system."""
        if time.monotonic() - self._searched > _SEARCH_S:
            self._search()
        for pid in self._cpu_s:
            stat = _stat(pid)
            if stat is not None:
                self._cpu_s[pid] = sum(map(int, stat[11:13])) / _TICK
                self._peak_bytes[pid] = max(self._peak_bytes.get(pid, 0), _peak_bytes(pid))
        return sum(self._cpu_s.values())

    @property
    def peak_mb(self) -> float:
        """Sum of each process's largest resident size, in MiB."""
        return sum(self._peak_bytes.values()) / 2**20

    @property
    def size(self) -> int:
        """How many processes there have been."""
        return len(self._cpu_s)

    def pids(self) -> list[int]:
        """Every process of the tree seen so far, the root first."""
        self._search()
        return list(self._cpu_s)

    def _search(self) -> None:
        children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            stat = _stat(int(name)) if name.isdigit() else None
            if stat is not None:
                children.setdefault(int(stat[1]), []).append(int(name))
        found = [self._root]
        for pid in found:
            found += children.get(pid, [])
            self._cpu_s.setdefault(pid, 0.0)
        self._searched = time.monotonic()


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on (state, parent, …); None when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return None


def _peak_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
