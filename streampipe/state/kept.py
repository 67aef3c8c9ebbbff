"""State that was kept on disk when its worker let it go: how far it goes, and a file for what was in memory.

Whatever is kept was committed, so it is true as long as its changelog is the same topic and the rest of it is read
from where it ends. It is void when the changelog is another one by now, or when it lay so long that compaction may
have dropped tombstones which nobody read (`delete.retention.ms`, a day by default).
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from streampipe.errors import ConfigError

log = logging.getLogger(__name__)

VERSION = 1
VOID_AFTER_MS = 12 * 3_600_000
_CRC_SIZE = 8
_MARK = "streampipe.mark"


@dataclass(frozen=True, slots=True)
class Mark:
    """How far kept state goes: all that is committed of the changelog with this topic id before `offset`."""

    topic_id: str
    offset: int
    at_ms: int
    """When it was kept, by the wall clock."""
    shape: str = ""
    """How its entries are written, where they do not say so themselves."""
    stream_time_ms: int | None = None
    """The newest time of its records, where what they say depends on it."""

    def usable(self, topic_id: str, first: int, end: int, now_ms: int) -> bool:
        """Whether a changelog with this id, of these offsets, goes on where the state ends."""
        return self.topic_id == topic_id and first <= self.offset <= end and now_ms - self.at_ms <= VOID_AFTER_MS

    def save(self, folder: Path) -> None:
        """Write it to a file in the folder that it is the mark of, with what else is there. Raises OSError."""
        data = orjson.dumps({"version": VERSION, **asdict(self), "files": _files(folder)})
        (folder / _MARK).write_bytes(_crc(data) + data)

    @classmethod
    def load(cls, folder: Path) -> Mark | None:
        """And back, once; None when there is none, or when it or the folder is not as it was written."""
        found = _read(folder / _MARK)
        if found is None:
            return None
        (folder / _MARK).unlink()  # from now on the folder is written to
        fields = orjson.loads(found)
        if fields.pop("files", None) == _files(folder):
            return _mark(fields)
        not_used(folder, "its files are not those that were kept")
        return None


def check_folder(folder: Path) -> None:
    """Raise ConfigError when a file is in the way of a folder of state."""
    for path in (folder, *folder.parents):
        if os.path.isfile(path):  # that of Path raises for what it may not see
            raise unusable(folder, f"{path} is a file")


def unusable(folder: Path, why: str) -> ConfigError:
    """The error for a folder that state cannot be in."""
    return ConfigError(f"state folder {folder} cannot be made: {why}; set state_dir to a folder that can be written to")


def write(path: Path, mark: Mark, entries: Mapping[bytes, bytes]) -> None:
    """Keep these entries in a file, all or nothing: lengths of keys, lengths of values, keys, values.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    head = orjson.dumps({"version": VERSION, **asdict(mark), "count": len(entries)})
    lengths = [np.array([*map(len, part)], ">u4").tobytes() for part in (entries, entries.values())]
    parts = [head, b"\n", *lengths, b"".join(entries), b"".join(entries.values())]
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        file.write(_crc(*parts))
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read(path: Path) -> tuple[Mark, dict[bytes, bytes]] | None:
    """What such a file holds; None when there is none, or when it is not as it was written."""
    found = _read(path)
    if found is None:
        return None
    head, _, body = found.partition(b"\n")
    fields = orjson.loads(head)
    count = fields.pop("count")
    mark = _mark(fields)
    sizes = np.frombuffer(body, ">u4", 2 * count)
    cuts = [sizes.nbytes, *(np.cumsum(sizes, dtype=np.int64) + sizes.nbytes).tolist()]
    parts = [body[start:end] for start, end in pairwise(cuts)]
    return None if mark is None else (mark, dict(zip(parts[:count], parts[count:], strict=True)))


def not_used(path: Path, why: str) -> None:
    """Say why something that was kept is of no use."""
    log.warning("kept state is not used, its changelog is read whole: %s: %s", path, why)


def _mark(fields: dict[str, Any]) -> Mark | None:
    return Mark(**fields) if fields.pop("version") == VERSION else None


def _files(folder: Path) -> dict[str, list[int]]:
    """Size of each file of a database, and the checksum of those that say which others there are.

    The others have checksums in them. What says how the database was opened, and its log, may be anything.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".sst" or path.name.startswith(("MANIFEST", "CURRENT")):
            listing = b"" if path.suffix == ".sst" else path.read_bytes()
            found[path.name] = [path.stat().st_size, zlib.crc32(listing)]
    return found


def _crc(*parts: bytes) -> bytes:
    return b"%08x" % reduce(lambda crc, part: zlib.crc32(part, crc), parts, 0)


def _read(path: Path) -> bytes | None:
    """A file less its checksum; None when there is none, or when it is not right."""
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        not_used(path, str(error))
        return None
    data = whole[_CRC_SIZE:]
    if whole[:_CRC_SIZE] == _crc(data):
        return data
    not_used(path, "it is not as it was written")
    return None
