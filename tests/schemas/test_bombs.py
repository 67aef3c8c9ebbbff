"""Schemas and records made to exhaust a reader are refused at once, and the process lives."""

from __future__ import annotations

import subprocess
import sys

import orjson
import pytest

from streampipe.schemas.avro import parse
from streampipe.schemas.model import MAX_DEPTH, SchemaError
from tests.schemas.support import decoder, failing_rows, framed

TREE = '{"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}'
NULLS = '{"type": "record", "name": "B", "fields": [{"name": "a", "type": {"type": "array", "items": "null"}}]}'
THIRTY_MILLION = b"\x80\xce\x9c\x1c\x00"
pytestmark = pytest.mark.timeout(20)  # read in full, a bomb takes minutes or all memory


def _nested(levels: int) -> str:
    return '{"type":"array","items":' * levels + '"int"' + "}" * levels


def _laughs(levels: int) -> str:
    """Records that mention the one before ten times: small text, 10^levels types."""
    kind: object = "int"
    for level in range(levels):
        fields = [{"name": f"f{i}", "type": kind if i == 0 else f"L{level - 1}" if level else "int"} for i in range(10)]
        kind = {"type": "record", "name": f"L{level}", "fields": fields}
    return orjson.dumps(kind).decode()


def _chain(length: int) -> str:
    """A union of records, each of which holds the one before: flat text, deep type."""
    first = {"type": "record", "name": "C0", "fields": []}
    links = [
        {"type": "record", "name": f"C{i}", "fields": [{"name": "f", "type": f"C{i - 1}"}]} for i in range(1, length)
    ]
    return orjson.dumps([first, *links]).decode()


@pytest.mark.parametrize(
    "text", [_nested(65), _nested(50_000), _laughs(8), _chain(5_000)], ids=["65", "50,000", "laughs", "chain"]
)
def test_a_schema_bomb_is_refused_at_once(text: str) -> None:
    with pytest.raises(SchemaError):
        parse(text)


def test_a_schema_at_the_limit_is_fine() -> None:
    assert parse(_nested(MAX_DEPTH - 1)).kind == "array"


@pytest.mark.parametrize(
    ("text", "body"),
    [(TREE, b"\x02" * 5_000 + b"\x00"), (TREE, b"\x02" * 101 + b"\x00"), (NULLS, THIRTY_MILLION)],
    ids=["5,000 levels", "101 levels", "30 million nulls"],
)
def test_a_record_bomb_fails_alone_and_at_once(text: str, body: bytes) -> None:
    good = b"\x00"
    made = decoder(text, text)
    decoded = made.decode(framed([good, body, good]))
    assert failing_rows(decoded) == {1: ("deserialization", "MalformedRecord")}
    assert decoded.columns.num_rows == 2


def test_a_deep_tree_within_the_limit_keeps_all_its_levels() -> None:
    body = b"\x02" * 90 + b"\x00"
    decoded = decoder(TREE, TREE).decode(framed([body]))
    assert decoded.columns.to_pylist() == [{"next": body[1:]}]


def test_a_process_survives_all_of_them() -> None:
    code = (
        "from tests.schemas import test_bombs as t\n"
        "for text in (t._nested(50_000), t._laughs(8), t._chain(5_000)):\n"
        "    t.test_a_schema_bomb_is_refused_at_once(text)\n"
        "for text, body in ((t.TREE, b'\\x02' * 100_000), (t.NULLS, t.THIRTY_MILLION)):\n"
        "    t.test_a_record_bomb_fails_alone_and_at_once(text, body)\n"
        "print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-500:]
