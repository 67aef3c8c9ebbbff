"""Runs the streampipe command line under cProfile: python -m benchmarks.profiler FILE run …

cProfile counts calls into C as well but makes each of them slower: trust the order, not the seconds.
"""

from __future__ import annotations

import cProfile
import io
import pstats
import sys
from pathlib import Path

TOP = 25


def main(file: str, arguments: list[str]) -> None:
    """Run `streampipe ARGUMENTS` and leave its statistics in `file`, however it ends."""
    from streampipe.cli.main import main as streampipe

    sys.argv = ["streampipe", *arguments]
    profile = cProfile.Profile()
    try:
        profile.runcall(streampipe)
    finally:
        profile.dump_stats(file)


def top(file: Path) -> str:
    """The most expensive functions by their own time."""
    text = io.StringIO()
    pstats.Stats(str(file), stream=text).strip_dirs().sort_stats("tottime").print_stats(TOP)
    return text.getvalue()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
