"""Ends what a dead parent left behind. Run as a script by `stack`; its standard input is a pipe from the parent.

Lines: `+PGID` a process group was started, `-PGID` it is over, `=FOLDER` remove this folder too. When the pipe
closes, whatever the parent died of, the groups still open are killed and the folders removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress


def main() -> None:
    """Read the pipe to its end, then clean up."""
    groups: set[int] = set()
    folders: list[str] = []
    for line in sys.stdin:
        mark, rest = line[0], line[1:].rstrip("\n")
        if mark == "+":
            groups.add(int(rest))
        elif mark == "-":
            groups.discard(int(rest))
        elif mark == "=":
            folders.append(rest)
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    for folder in folders:
        for _ in range(50):  # a killed process may still be writing its last file
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break
            time.sleep(0.1)


if __name__ == "__main__":
    main()
