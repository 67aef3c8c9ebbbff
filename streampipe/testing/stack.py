"""A real Apache Kafka and a real schema registry on loopback, for tests, benchmarks and trying things out.

One KRaft node and one Apicurio Registry (Confluent's API under /apis/ccompat/v7) with temporary data, ready in
seconds. They end with the `with` block, at exit, and also when this process is killed: nothing is left behind.
As a program: `python -m streampipe.testing.stack` runs the pair until Ctrl-C.
"""

from __future__ import annotations

import argparse
import atexit
import base64
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from streampipe.testing.stack_artifacts import (
    KAFKA_JAVA,
    KAFKA_VERSION,
    REGISTRY_JAVA,
    REGISTRY_VERSION,
    StackUnavailable,
    find_java,
    kafka_jars,
    registry_home,
)

__all__ = ["KAFKA_VERSION", "REGISTRY_VERSION", "Stack", "StackUnavailable", "main"]

HOST = "127.0.0.1"
START_TIMEOUT_S = 60.0
_LOG4J = Path(__file__).with_name("stack_log4j2.xml")
_REAPER = Path(__file__).with_name("stack_reaper.py")

_KAFKA_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "auto.create.topics.enable": "false",
    "log.retention.ms": "-1",  # event times in tests are often years ago
    # Tests wait for rebalances and time-outs: what is seconds in production is a fraction here.
    "broker.session.timeout.ms": "3000",  # how long a killed node's registration blocks its successor
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.heartbeat.interval.ms": "300",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}


class Stack:
    """An Apache Kafka (`kafka`) and a schema registry (`registry`) on free loopback ports, or on `ports` in that order.

    `properties` overrides broker settings. Raises StackUnavailable, saying what is missing, when it cannot start.
    """

    def __init__(
        self,
        *,
        kafka: bool = True,
        registry: bool = False,
        ports: tuple[int, int] | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self._with_kafka, self._with_registry = kafka, registry
        self._kafka_port, self._registry_port = ports or (free_port(), free_port())
        self._properties = dict(properties or {})
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._reaper: subprocess.Popen[str] | None = None
        self.folder: Path | None = None

    @property
    def bootstrap(self) -> str:
        """Address of the Kafka node, host:port."""
        return f"{HOST}:{self._kafka_port}"

    @property
    def registry_url(self) -> str:
        """URL of the registry's Confluent API."""
        if not self._with_registry:
            raise StackUnavailable("this stack was started without a registry; use Stack(registry=True)")
        return f"http://{HOST}:{self._registry_port}/apis/ccompat/v7"

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what runs now, by name (`kafka`, `registry`)."""
        return {name: process.pid for name, process in self._processes.items()}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until everything answers; a stack that fails to start leaves nothing behind."""
        kafka = (find_java(KAFKA_JAVA), kafka_jars()) if self._with_kafka else None
        registry = (find_java(REGISTRY_JAVA), registry_home()) if self._with_registry else None
        self.folder = Path(tempfile.mkdtemp(prefix="streampipe-stack-"))
        atexit.register(self.stop)
        try:
            self._start_reaper()
            if registry is not None:
                self._spawn("registry", self._registry_command(*registry))
            if kafka is not None:
                self._format(*kafka)
                self.start_kafka()
            if registry is not None:
                self._await("registry", self._registry_answers)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process and remove the data. Calling it again does nothing."""
        atexit.unregister(self.stop)
        for name in list(self._processes):
            self._end(name, signal.SIGKILL)  # the data goes away as well: nothing to close in order
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._reaper is not None:
            self._reaper.communicate()
            self._reaper = None
        self.folder = None

    def start_kafka(self) -> None:
        """Start the Kafka node again after `stop_kafka`, on the same port and data."""
        java = _kafka_java(find_java(KAFKA_JAVA), kafka_jars())
        self._spawn("kafka", [*java, "kafka.Kafka", str(self._home / "kafka.properties")])
        self._await("kafka", self._kafka_answers)

    def stop_kafka(self, *, kill: bool = False) -> None:
        """End the Kafka node, in order (SIGTERM) or at once (SIGKILL); data and port stay."""
        self._end("kafka", signal.SIGKILL if kill else signal.SIGTERM)

    def restart_kafka(self, *, kill: bool = False) -> None:
        """End the Kafka node and start it again on the same port and data."""
        self.stop_kafka(kill=kill)
        self.start_kafka()

    @property
    def _home(self) -> Path:
        if self.folder is None:
            raise StackUnavailable("the stack is not running; use it as a context manager")
        return self.folder

    def _start_reaper(self) -> None:
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_REAPER)], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        self._tell(f"={self.folder}")

    def _tell(self, line: str) -> None:
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.write(line + "\n")
            self._reaper.stdin.flush()

    def _registry_command(self, java: Path, home: Path) -> list[str]:
        settings = {
            "http.host": HOST,
            "http.port": self._registry_port,
            "management.host": HOST,  # Quarkus would open a second port to the world
            "management.port": free_port(),
            "otel.sdk.disabled": "true",
            "log.level": "WARN",
        }
        options = [f"-Dquarkus.{key}={value}" for key, value in settings.items()]
        return [str(java), "-Xmx512m", *options, "-jar", str(home / "quarkus-run.jar")]

    def _format(self, java: Path, jars: Path) -> None:
        controller = free_port()
        settings = _KAFKA_PROPERTIES | {
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "log.dirs": str(self._home / "data"),
        }  # fmt: skip
        file = self._home / "kafka.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in (settings | self._properties).items()))
        cluster = base64.urlsafe_b64encode(uuid.uuid5(uuid.NAMESPACE_OID, str(file)).bytes).decode().rstrip("=")
        command = [*_kafka_java(java, jars), "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}"]
        done = subprocess.run([*command, "-c", str(file)], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise StackUnavailable(f"Kafka's storage cannot be formatted: {(done.stderr or done.stdout).strip()}")

    def _spawn(self, name: str, command: Sequence[str]) -> None:
        with (self._home / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=self._home, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._tell(f"+{process.pid}")
        self._processes[name] = process

    def _end(self, name: str, how: signal.Signals) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._tell(f"-{process.pid}")

    def _await(self, name: str, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers():
            ended = self._processes[name].poll() is not None
            if ended or time.monotonic() > deadline:
                what = "ended at once" if ended else f"did not answer within {START_TIMEOUT_S:.0f} s"
                log = (self._home / f"{name}.log").read_text(errors="replace").splitlines()
                raise StackUnavailable(f"{name} {what}; its last words: {' | '.join(log[-5:])}")
            time.sleep(0.05)

    def _kafka_answers(self) -> bool:
        """Whether the node answers ApiVersions (key 18, version 0, no client id): an open port alone says little."""
        with suppress(OSError), socket.create_connection((HOST, self._kafka_port), timeout=5) as connection:
            connection.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
            return len(connection.recv(4)) == 4
        return False

    def _registry_answers(self) -> bool:
        with suppress(OSError):
            urllib.request.urlopen(f"{self.registry_url}/subjects", timeout=5).close()  # noqa: S310 - our own http URL
            return True
        return False


_GIVEN: set[int] = set()


def free_port() -> int:
    """A free loopback port below the ephemeral range, where no outgoing connection can take it during a restart.

    None is given twice: whoever got the first one may not listen yet.
    """
    ports: list[int] = random.sample([*{*range(20_000, 32_000)} - _GIVEN], 1_000)
    for port in ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            _GIVEN.add(port)
            return port
    raise StackUnavailable("no free loopback port between 20000 and 32000")


def _kafka_java(java: Path, jars: Path) -> list[str]:
    return [str(java), "-Xmx512m", f"-Dlog4j2.configurationFile={_LOG4J}", "-cp", f"{jars}/*"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pair until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m streampipe.testing.stack", description=main.__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON line with broker, registry and pids")
    parser.add_argument("--ports", metavar="KAFKA,REGISTRY", help="fixed ports instead of free ones")
    given = parser.parse_args(arguments)
    try:
        ports = tuple(map(int, given.ports.split(","))) if given.ports else None
    except ValueError:
        parser.error(f"--ports: {given.ports!r} is not two port numbers separated by a comma")
    if ports is not None and len(ports) != 2:
        parser.error(f"--ports takes two port numbers, not {len(ports)}")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        with Stack(registry=True, ports=ports) as stack:
            _announce(stack, as_json=given.json)
            ended.wait()
    except StackUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _announce(stack: Stack, *, as_json: bool) -> None:
    broker, registry = f"kafka:{stack.bootstrap}", stack.registry_url
    if as_json:
        line = json.dumps({"broker": broker, "registry": registry, "pids": stack.pids})
    else:
        line = f"export STREAMPIPE_BROKER={broker}\nexport STREAMPIPE_REGISTRY={registry}\n# Ctrl-C ends both"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
