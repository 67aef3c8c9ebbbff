"""Golden files: what a processor wrote, kept in a file that people can read, and compared with what it writes now."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from streampipe.observe.values import json_bytes, text_of
from streampipe.testing.topics import Output

UPDATE = "STREAMPIPE_UPDATE_GOLDEN"
_SHOWN_LINES = 40


def assert_golden(path: str | Path, outputs: Sequence[Output]) -> None:
    """Assert that a file holds just these outputs, a line of JSON each: key, timestamp and event.

    With STREAMPIPE_UPDATE_GOLDEN=1 in the environment the file is written instead. Raises AssertionError with what
    differs.
    """
    path = Path(path)
    lines = [line_of(output) for output in outputs]
    if os.environ.get(UPDATE):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return
    repair = f"; once it is right, run again with {UPDATE}=1 and look at the change"
    if not path.is_file():
        raise AssertionError(f"golden file {path} does not exist{repair}")
    kept = path.read_text("utf-8").splitlines()
    if kept != lines:
        difference = list(difflib.unified_diff(kept, lines, str(path), "written now", lineterm="", n=1))
        more = f"\n... and {len(difference) - _SHOWN_LINES} more lines" if len(difference) > _SHOWN_LINES else ""
        shown = "\n".join(difference[:_SHOWN_LINES])
        raise AssertionError(f"what was written is not what golden file {path} holds{repair}\n{shown}{more}")


def line_of(output: Output) -> str:
    """An output as a line of JSON."""
    return json_bytes({"key": text_of(output.key), "timestamp": output.timestamp, "event": output.event}).decode()
