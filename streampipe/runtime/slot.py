"""Worker slots: small numbers that are unique among the live workers of a processor on one machine.

A worker's transactional id is made of the machine's name and its slot. It must be stable over restarts, so that a new
worker ends at once what its predecessor left open, and no two live workers may share it, or they fence each other for
ever. A lock file for each slot gives both: the system lets go of the lock however its process ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from streampipe.errors import ConfigError


def machine() -> str:
    """This machine's name, as part of a transactional id."""
    return socket.gethostname()


@contextmanager
def claimed_slot(broker: str, app_id: str, wanted: int) -> Iterator[int]:
    """The first free slot from `wanted` on, for the processor on that broker; free again afterwards.

    Raises ConfigError when the folder of the locks belongs to somebody else.
    """
    folder = _folder()
    name = hashlib.sha256(f"{broker}\0{app_id}".encode()).hexdigest()[:24]
    for slot in count(wanted):
        handle = os.open(folder / f"{name}-{slot}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            continue
        try:
            yield slot
        finally:
            os.close(handle)
        return


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"streampipe-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.getuid():
        raise ConfigError(f"folder {folder} belongs to somebody else; set TMPDIR to a folder of your own")
    return folder
