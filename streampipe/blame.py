"""Whose code an error came of: the line that somebody can mend who writes processors."""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path
from traceback import walk_tb
from types import CodeType

_OURS = str(Path(__file__).parent)
_PYTHON = sysconfig.get_path("stdlib")
_LIBRARIES = ("site-packages", "dist-packages")


def users_line(error: BaseException) -> tuple[CodeType, int] | None:
    """Code and number of the innermost line outside of streampipe, Python and, if there is one, of libraries.

    The innermost one at all when all of them are inside; None for an error that was never raised.
    """
    lines = [(frame.f_code, line) for frame, line in walk_tb(error.__traceback__)]
    return min(reversed(lines), key=lambda line: _remoteness(line[0].co_filename), default=None)


@cache
def _remoteness(file: str) -> int:
    """Of a file; what Python makes up itself, as the constructor of a dataclass, is "<string>"."""
    library = any(name in file for name in _LIBRARIES)
    if file.startswith((_OURS, "<frozen", "<string>")) or (file.startswith(_PYTHON) and not library):
        return 2
    return int(library)
