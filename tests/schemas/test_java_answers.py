"""Apache Avro's Java reader is the judge of both codecs."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest

from streampipe.schemas.avro import parse
from tests.schemas.support import decoder, framed, physical, rows_of, runs_columnar, untagged

_CASES = Path(__file__).parent / "data" / "cases.jsonl.gz"
_ERROR = "error"


@cache
def cases() -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in gzip.open(_CASES)]


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _jsonable(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_jsonable(v) for v in value]
    return {"bytes": value.hex()} if isinstance(value, bytes) else value


def _expected(answer: Any) -> Any:
    return _ERROR if isinstance(answer, dict) and answer.keys() == {"error"} else answer


def _answers(case: dict[str, Any], *, rows_only: bool) -> list[Any]:
    writer, reader = (orjson.dumps(case[which]).decode() for which in ("writer", "reader"))
    values = framed([bytes.fromhex(body) for body in case["hex"]])
    decoded = decoder(writer, reader, rows_only=rows_only).decode(values)
    node = parse(reader)
    answers: list[Any] = [None] * len(values)
    for row, value in zip(rows_of(decoded, len(values)), physical(decoded.columns, node), strict=True):
        answers[row] = _jsonable(untagged(node, value))
    for failure in decoded.failures:
        answers[failure.row] = _ERROR
    return answers


@pytest.mark.parametrize("rows_only", [False, True], ids=["fastest codec", "row codec"])
@pytest.mark.parametrize("part", range(4))
def test_every_payload_reads_as_in_java_value_or_error(part: int, rows_only: bool) -> None:
    for case in cases()[part::4]:
        expected = [_expected(answer) for answer in case["answers"]]
        assert _answers(case, rows_only=rows_only) == expected, case["id"]


def test_every_writer_without_bytes_or_fixed_runs_columnar_and_no_other_does() -> None:
    columnar = 0
    for case in cases():
        writer, reader = (orjson.dumps(case[which]).decode() for which in ("writer", "reader"))
        runs = runs_columnar(decoder(writer, reader))
        assert runs != ('"bytes"' in writer or '"fixed"' in writer), case["id"]
        columnar += runs
    assert columnar == 328
