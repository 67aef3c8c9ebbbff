"""The test stack: comes up, survives a restart, says what is missing, and leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from streampipe.testing import stack_artifacts
from streampipe.testing.stack import Stack, StackUnavailable, _announce, free_port, main

START_STACK = """
import sys
from streampipe.testing.stack import Stack
stack = Stack()
stack.start()
print(stack.pids["kafka"], stack.folder, flush=True)
sys.stdin.read()
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def await_(condition: Callable[[], bool], timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def fake_java(home: Path, version: str) -> Path:
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").touch()
    (home / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return home


@pytest.fixture
def javas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only Java installations are the ones below this folder."""
    monkeypatch.setattr(stack_artifacts, "_JVM_FOLDERS", (str(tmp_path),))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return tmp_path


def test_no_port_is_given_twice_whatever_chance_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "sample", lambda ports, count: sorted(ports)[:count])
    assert len({free_port() for _ in range(20)}) == 20


def test_the_oldest_java_that_is_new_enough_is_used(javas: Path) -> None:
    for name, version in (("eight", "1.8.0_412"), ("seventeen", "17.0.15"), ("new", "25"), ("mid", "21.0.2")):
        fake_java(javas / name, version)
    assert stack_artifacts.find_java(17) == javas / "seventeen/bin/java"
    assert stack_artifacts.find_java(21) == javas / "mid/bin/java"


def test_a_missing_java_is_named_with_what_there_is_instead(javas: Path) -> None:
    fake_java(javas / "eight", "1.8.0_412")
    with pytest.raises(StackUnavailable, match=r"Java 17 or newer is missing \(found: 8 in .*eight\)"):
        stack_artifacts.find_java(17)


def test_a_missing_maven_is_named_unless_everything_is_downloaded(
    javas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_java(javas / "new", "25.0.1")
    monkeypatch.setenv("STREAMPIPE_STACK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(StackUnavailable, match="Maven"):
        stack_artifacts.check()
    (tmp_path / "cache" / f"kafka-{stack_artifacts.KAFKA_VERSION}").mkdir(parents=True)
    stack_artifacts.check()


def test_a_broken_download_leaves_nothing_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maven = tmp_path / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text('#!/bin/sh\ntouch half-a-jar\necho "[ERROR] no such host"\nexit 1\n')
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{maven.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STREAMPIPE_STACK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(StackUnavailable, match="no such host"):
        stack_artifacts.kafka_jars()
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")] == []


def test_a_stack_that_was_not_asked_for_a_registry_has_no_url() -> None:
    with pytest.raises(StackUnavailable, match="registry=True"):
        _ = Stack().registry_url


def test_wrong_ports_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--ports", "1,x"])
    assert "1,x" in capsys.readouterr().err


def test_what_is_printed_for_people_can_be_pasted_into_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    _announce(Stack(registry=True, ports=(30_001, 30_002)), as_json=False)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) < 80
    shell = f'{printed}echo "$STREAMPIPE_BROKER $STREAMPIPE_REGISTRY"'
    echoed = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
    assert echoed == "kafka:127.0.0.1:30001 http://127.0.0.1:30002/apis/ccompat/v7\n"


@pytest.mark.kafka
def test_a_node_whose_port_is_taken_says_so_and_leaves_nothing_behind() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stack = Stack(ports=(taken.getsockname()[1], free_port()))
        folders: list[Path] = []
        format_storage = stack._format

        def spy(java: Path, jars: Path) -> None:
            folders.append(stack._home)
            format_storage(java, jars)

        stack._format = spy  # type: ignore[method-assign]  # to learn the folder's name before it is gone
        with pytest.raises(StackUnavailable, match="kafka ended"):
            stack.start()
    assert not folders[0].exists()


@pytest.mark.kafka
@pytest.mark.slow
def test_nothing_is_left_behind_when_the_parent_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", START_STACK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid, folder = parent.stdout.readline().split()
    assert alive(int(pid))
    assert Path(folder).is_dir()
    parent.kill()
    parent.communicate()
    assert await_(lambda: not alive(int(pid)))
    assert await_(lambda: not Path(folder).exists())


@pytest.mark.kafka
@pytest.mark.registry
@pytest.mark.slow
def test_the_program_prints_how_to_reach_the_pair_and_ends_on_sigterm() -> None:
    ports = f"{free_port()},{free_port()}"
    program = subprocess.Popen(
        [sys.executable, "-m", "streampipe.testing.stack", "--json", "--ports", ports],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    printed = json.loads(program.stdout.readline())
    kafka, registry = ports.split(",")
    assert printed["broker"] == f"kafka:127.0.0.1:{kafka}"
    assert f":{registry}/apis/ccompat/v7" in printed["registry"]
    with urllib.request.urlopen(printed["registry"] + "/subjects", timeout=5) as answer:
        assert json.load(answer) == []
    socket.create_connection(("127.0.0.1", int(kafka)), timeout=5).close()
    program.send_signal(signal.SIGTERM)
    program.communicate()
    assert program.returncode == 0
    assert not any(map(alive, printed["pids"].values()))


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("kill", [False, True])
def test_a_restarted_node_is_another_process_on_the_same_port(kafka_stack: Stack, kill: bool) -> None:
    before, address = kafka_stack.pids["kafka"], kafka_stack.bootstrap
    kafka_stack.restart_kafka(kill=kill)
    assert kafka_stack.pids["kafka"] != before
    assert not alive(before)
    assert kafka_stack.bootstrap == address
    host, port = address.split(":")
    socket.create_connection((host, int(port)), timeout=5).close()


@pytest.mark.kafka
def test_every_port_of_the_node_is_bound_to_loopback(kafka_stack: Stack) -> None:
    ss = shutil.which("ss")
    if ss is None:
        pytest.skip("ss (iproute2) is missing")
    listing = subprocess.run([ss, "-ltnpH"], capture_output=True, text=True, check=True).stdout
    own = [line.split()[3] for line in listing.splitlines() if f"pid={kafka_stack.pids['kafka']}," in line]
    assert len(own) >= 2
    assert all("127.0.0.1" in address for address in own)
