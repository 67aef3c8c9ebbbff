"""64-bit hashes of columns, the same in every process, on every machine and in every version.

A value is one or several 64-bit words: an integer, Boolean or time is its number, a float its bits as a double (one
zero, one not-a-number), a decimal its text; a text or binary is its length, then its bytes in little-endian words, the
last one filled up with zeros. From h = 0 each word w in turn makes h = mix(h + GOLDEN ^ w), where mix is the finalizer
of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014). It is no
cryptographic hash: whoever chooses the values can make them collide.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streampipe.operators.accumulators.base import numbers
from streampipe.operators.grouping import as_physical

Words = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_WORD = 8


def hashes(array: pa.Array) -> Words:
    """The hash of each value of an array without nulls."""
    is_ = pa.types
    if is_.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if is_.is_floating(kind):
        values = numbers(array, np.float64) + 0.0  # no negative zero
        return _step(_start(len(values)), np.where(np.isnan(values), np.nan, values).view(np.uint64))
    if is_.is_integer(kind) or is_.is_boolean(kind) or is_.is_temporal(kind):
        return _step(_start(len(array)), numbers(as_physical(array), np.int64).view(np.uint64))
    return _of_bytes((array.cast(pa.string()) if is_.is_decimal(kind) else array).cast(pa.large_binary()))


def _start(n: int) -> Words:
    return np.zeros(n, np.uint64)


def _step(before: Words, word: Words) -> Words:
    h = (before + _GOLDEN) ^ word
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(h ^ (h >> np.uint64(31)))


def _of_bytes(array: pa.Array) -> Words:
    """A word of all values at once: as many steps as the longest has words."""
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    filled = np.concatenate([content, np.zeros(_WORD, np.uint8)])
    words = np.lib.stride_tricks.sliding_window_view(filled, _WORD)
    start, length = ends[:-1], np.diff(ends)
    out = _step(_start(len(length)), length.view(np.uint64))
    rows = np.flatnonzero(length > 0)
    for at in range(0, int(length.max(initial=0)), _WORD):
        rows = rows[length[rows] > at]
        word = np.ascontiguousarray(words[start[rows] + at]).view("<u8")[:, 0].astype(np.uint64)
        unused = np.maximum(_WORD - (length[rows] - at), 0).astype(np.uint64) * np.uint64(8)
        word &= ~np.uint64(0) >> unused  # at most 7 bytes, for there is at least one
        out[rows] = _step(out[rows], word)
    return out
