"""What every test may use: a real Apache Kafka and registry, started once when first asked for.

STREAMPIPE_TEST_KAFKA=host:port and STREAMPIPE_TEST_REGISTRY=url use running ones instead. Where they cannot run,
tests marked `kafka` or `registry` are skipped with the reason; with STREAMPIPE_REQUIRE_KAFKA=1 they fail, and so
does a session in which none of them ran.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from streampipe.testing.stack import KAFKA_VERSION, REGISTRY_VERSION, Stack, StackUnavailable
from streampipe.testing.stack_artifacts import check
from tests.proof import PROVING

settings.register_profile("default", deadline=None, max_examples=100)
settings.register_profile(
    "prove", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("prove" if PROVING else "default")

_GIVEN_KAFKA = os.environ.get("STREAMPIPE_TEST_KAFKA")
_GIVEN_REGISTRY = os.environ.get("STREAMPIPE_TEST_REGISTRY")
_REQUIRED = os.environ.get("STREAMPIPE_REQUIRE_KAFKA") == "1"
_FIXTURES = {"kafka_stack": "kafka", "kafka_bootstrap": "kafka", "registry_url": "registry"}

_ran_on: dict[str, str] = {}
_kafka_tests_run = 0


@pytest.fixture(scope="session")
def kafka_stack() -> Iterator[Stack]:
    """The session's own Apache Kafka node; the test may restart it. Skips where a running Kafka was given."""
    if _GIVEN_KAFKA:
        pytest.skip("needs a Kafka of its own, and STREAMPIPE_TEST_KAFKA gives another one")
    stack = _started(Stack)
    _ran_on["kafka"] = f"Apache Kafka {KAFKA_VERSION} started by the tests"
    yield stack
    stack.stop()


@pytest.fixture(scope="session")
def kafka_bootstrap(request: pytest.FixtureRequest) -> str:
    """host:port of a real Apache Kafka."""
    if _GIVEN_KAFKA:
        _ran_on["kafka"] = f"the given Kafka at {_GIVEN_KAFKA}"
        return _GIVEN_KAFKA
    stack: Stack = request.getfixturevalue("kafka_stack")
    return stack.bootstrap


@pytest.fixture(scope="session")
def registry_url() -> Iterator[str]:
    """URL of a real schema registry."""
    if _GIVEN_REGISTRY:
        _ran_on["registry"] = "the given registry"
        yield _GIVEN_REGISTRY
        return
    stack = _started(lambda: Stack(kafka=False, registry=True))
    _ran_on["registry"] = f"Apicurio Registry {REGISTRY_VERSION} started by the tests"
    yield stack.registry_url
    stack.stop()


def _started(make: Callable[[], Stack]) -> Stack:
    try:
        stack = make()
        stack.start()
    except StackUnavailable as error:
        _unavailable(str(error))
    return stack


def _unavailable(reason: str) -> NoReturn:
    if _REQUIRED:
        pytest.fail(f"STREAMPIPE_REQUIRE_KAFKA=1, but {reason}", pytrace=False)
    pytest.skip(reason)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the fixtures, so that `-m "not kafka"` means what it says."""
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in _FIXTURES:
                item.add_marker(_FIXTURES[fixture])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail, before a fixture tries to start what cannot run here."""
    kafka = item.get_closest_marker("kafka") is not None and not _GIVEN_KAFKA
    registry = item.get_closest_marker("registry") is not None and not _GIVEN_REGISTRY
    try:
        check(kafka=kafka, registry=registry)
    except StackUnavailable as error:
        _unavailable(str(error))


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Count the Kafka tests that really ran."""
    global _kafka_tests_run
    skipped = call.excinfo is not None and call.excinfo.errisinstance(pytest.skip.Exception)
    if call.when == "call" and not skipped and item.get_closest_marker("kafka") is not None:
        _kafka_tests_run += 1


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run that had to prove something on Kafka and did not is a failed run."""
    if _REQUIRED and not _kafka_tests_run and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what this run ran on."""
    kafka = _ran_on.get("kafka", "no Kafka")
    registry = _ran_on.get("registry", "no schema registry")
    terminalreporter.write_sep("-", "what this run ran on")
    terminalreporter.write_line(f"embedded log; {kafka} ({_kafka_tests_run} tests); {registry}")
    if _REQUIRED and not _kafka_tests_run:
        terminalreporter.write_line("FAILED: STREAMPIPE_REQUIRE_KAFKA=1 and no test ran on Kafka", red=True)
