"""The registry over HTTP: the suite on a real one, and what goes wrong on a line that a test controls."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest

from streampipe.errors import ConfigError, IncompatibleSchema, Unavailable, UnknownSchema
from streampipe.schemas.avro import parse
from streampipe.schemas.registry.confluent import ConfluentRegistry
from tests.schemas.registry_conformance import RegistryConformance, record

LIMIT_S = 4.0


@pytest.mark.registry
class TestConfluentRegistry(RegistryConformance):
    @pytest.fixture
    def registry(self, registry_url: str) -> Iterator[ConfluentRegistry]:
        made = ConfluentRegistry(registry_url, {})
        yield made
        made.close()


Answer = tuple[int, object]


class Line:
    """An HTTP server that answers by a function of the path and counts the requests."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer: Callable[[str], Answer] = lambda path: (404, {"error_code": 40403, "message": "no"})
        line = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                line.requests.append(self.path)
                status, body = line.answer(self.path)
                payload = body if isinstance(body, bytes) else orjson.dumps(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_POST = do_GET  # noqa: N815  (as above)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


@pytest.fixture
def registry(line: Line) -> Iterator[ConfluentRegistry]:
    made = ConfluentRegistry(line.url, {})
    yield made
    made.close()


def test_an_unknown_id_is_asked_for_once(line: Line, registry: ConfluentRegistry) -> None:
    for _ in range(1_000):
        with pytest.raises(UnknownSchema):
            registry.by_id(7)
    assert len(line.requests) == 1


def test_a_known_id_is_asked_for_once(line: Line, registry: ConfluentRegistry) -> None:
    line.answer = lambda path: (200, {"schema": '"int"'})
    assert [registry.by_id(7) for _ in range(10)] == ['"int"'] * 10
    assert len(line.requests) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_trouble_of_the_server_is_unavailable_and_not_remembered(
    line: Line, registry: ConfluentRegistry, status: int
) -> None:
    line.answer = lambda path: (status, b"<html>")
    with pytest.raises(Unavailable):
        registry.by_id(7)
    line.answer = lambda path: (200, {"schema": '"int"'})
    assert registry.by_id(7) == '"int"'


def test_one_hiccup_is_tried_again(line: Line, registry: ConfluentRegistry) -> None:
    line.answer = lambda path: (503, {}) if len(line.requests) == 1 else (200, {"schema": '"int"'})
    assert registry.by_id(7) == '"int"'


def test_an_answer_that_is_not_json_is_unavailable(line: Line, registry: ConfluentRegistry) -> None:
    line.answer = lambda path: (200, b"<html>a proxy</html>")
    with pytest.raises(Unavailable):
        registry.by_id(7)


def test_a_refusal_is_incompatible(line: Line, registry: ConfluentRegistry) -> None:
    line.answer = lambda path: (
        (200, {"is_compatible": False}) if "compatibility" in path else (409, {"error_code": 409, "message": "no"})
    )
    with pytest.raises(IncompatibleSchema):
        registry.register("s", record(("a", "int")))
    assert registry.incompatibilities("s", record(("a", "int"))) != []


def test_references_are_put_into_the_text(line: Line, registry: ConfluentRegistry) -> None:
    inner = {"type": "record", "name": "Inner", "namespace": "a.b", "fields": [{"name": "x", "type": "int"}]}
    outer = {
        "type": "record",
        "name": "Outer",
        "namespace": "a.b",
        "fields": [{"name": "one", "type": "Inner"}, {"name": "two", "type": ["null", "a.b.Inner"]}],
    }
    reference = {"name": "a.b.Inner", "subject": "inner", "version": 3}
    answers: dict[str, Answer] = {
        "/schemas/ids/1": (200, {"schema": orjson.dumps(outer).decode(), "references": [reference]}),
        "/subjects/inner/versions/3": (
            200,
            {"subject": "inner", "version": 3, "id": 2, "schema": orjson.dumps(inner).decode()},
        ),
    }
    line.answer = lambda path: answers[path.partition("?")[0]]
    node = parse(registry.by_id(1))
    assert [field.type.label for field in node.fields] == ["a.b.Inner", "union"]


def _within_the_limit(url: str) -> None:
    registry = ConfluentRegistry(url, {})
    started = time.perf_counter()
    with pytest.raises(Unavailable):
        registry.by_id(1)
    assert time.perf_counter() - started < LIMIT_S
    registry.close()


def test_a_socket_that_accepts_and_is_silent_is_unavailable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _within_the_limit(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_refused_connection_is_unavailable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    _within_the_limit(f"http://127.0.0.1:{port}")


def test_credentials_show_in_no_name_and_no_message(line: Line) -> None:
    url = line.url.replace("http://", "http://me:s3cret-pw@")
    registry = ConfluentRegistry(url, {})
    assert "s3cret" not in registry.name
    line.answer = lambda path: (401, {"error_code": 40101, "message": "me:s3cret-pw is wrong"})
    with pytest.raises(ConfigError) as refused:
        registry.by_id(1)
    line.answer = lambda path: (500, {"error_code": 500, "message": "s3cret-pw"})
    with pytest.raises(Unavailable) as down:
        registry.by_id(1)
    with pytest.raises(ConfigError) as unknown:
        ConfluentRegistry(url, {"basic.auth.user.info": "s3cret-pw", "no.such": "s3cret-pw"})
    assert "s3cret" not in f"{refused.value}{down.value}{unknown.value}"
    registry.close()


def test_an_option_that_the_client_does_not_know_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"no\.such"):
        ConfluentRegistry("http://127.0.0.1:1", {"no.such": "x"})
