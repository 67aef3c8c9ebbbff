"""Where the test stack's programs come from: Java on this machine, Kafka and the registry through Maven, once."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from streampipe.errors import StreampipeError

KAFKA_VERSION = "4.3.1"
"""The same version as in stack_pom.xml."""
REGISTRY_VERSION = "3.3.3"
KAFKA_JAVA, REGISTRY_JAVA = 17, 21
"""Lowest Java release each of them runs on."""

_KAFKA, _REGISTRY = f"kafka-{KAFKA_VERSION}", f"apicurio-{REGISTRY_VERSION}"
_POM = Path(__file__).with_name("stack_pom.xml")
_JVM_FOLDERS = ("/usr/lib/jvm", "/usr/java", "/opt/java", "/Library/Java/JavaVirtualMachines")
_MAVEN_TIMEOUT_S = 600


class StackUnavailable(StreampipeError):
    """The test stack cannot run here: Java or Maven is missing, a download failed, or a process did not come up."""


def cache_dir() -> Path:
    """Folder of the downloaded programs: STREAMPIPE_STACK_CACHE, else ~/.cache/streampipe/stack."""
    given = os.environ.get("STREAMPIPE_STACK_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "streampipe" / "stack"


def find_java(minimum: int) -> Path:
    """The `java` of the oldest installed release that is at least `minimum`; raises StackUnavailable."""
    found = sorted({(major, home) for home in _java_homes() if (major := _java_release(home)) is not None})
    for major, home in found:
        if major >= minimum:
            return home / "bin" / "java"
    have = ", ".join(f"{major} in {home}" for major, home in found) or "none"
    raise StackUnavailable(f"Java {minimum} or newer is missing (found: {have}); install one or set JAVA_HOME")


def _java_homes() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home)
    if on_path := shutil.which("java"):
        yield Path(on_path).resolve().parent.parent
    for folder in _JVM_FOLDERS:
        for installed in Path(folder).glob("*"):
            yield from (installed.resolve(), installed / "Contents" / "Home")


def _java_release(home: Path) -> int | None:
    """Major release of the Java in `home`, from its `release` file; None when there is no Java."""
    try:
        text = (home / "release").read_text()
    except OSError:
        return None
    match = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', text, re.MULTILINE)
    return int(match[1]) if match and (home / "bin" / "java").exists() else None


def check(*, kafka: bool = True, registry: bool = False) -> None:
    """Raise StackUnavailable when Java, or Maven for what is not in the cache yet, is missing; downloads nothing."""
    needs = [(KAFKA_JAVA, _KAFKA)] * kafka + [(REGISTRY_JAVA, _REGISTRY)] * registry
    for java, name in needs:
        find_java(java)
        if not (cache_dir() / name).is_dir():
            _find_maven()


def kafka_jars() -> Path:
    """Folder of Kafka's jars, downloaded on first use; raises StackUnavailable."""
    return _cached(_KAFKA, _fetch_kafka)


def registry_home() -> Path:
    """Folder with the registry's quarkus-run.jar, downloaded on first use; raises StackUnavailable."""
    return _cached(_REGISTRY, _fetch_registry)


def _fetch_kafka(target: Path) -> None:
    shutil.copy(_POM, target / "pom.xml")  # Maven writes beside its pom
    _maven(target, "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target}")


def _fetch_registry(target: Path) -> None:
    artifact = f"io.apicurio:apicurio-registry-app:{REGISTRY_VERSION}:tar.gz:all"
    _maven(target, "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={target}")
    for archive in target.glob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            tar.extractall(target, filter="data")
        archive.unlink()
    run_jar = next(target.rglob("quarkus-run.jar"), None)
    if run_jar is None:
        raise StackUnavailable(f"{artifact} holds no quarkus-run.jar")
    if run_jar.parent != target:
        for item in list(run_jar.parent.iterdir()):
            item.rename(target / item.name)


def _find_maven() -> str:
    maven = shutil.which("mvn")
    if maven is None:
        raise StackUnavailable("Maven (mvn) is missing; it downloads the test stack: install it")
    return maven


def _maven(cwd: Path, *arguments: str) -> None:
    maven = _find_maven()
    try:
        done = subprocess.run(
            [maven, "-q", "-B", *arguments],
            cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_MAVEN_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StackUnavailable(f"mvn {arguments[0]} did not finish within {_MAVEN_TIMEOUT_S} s") from None
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line]
        raise StackUnavailable(f"mvn {arguments[0]} failed: {(errors or [done.stderr.strip()])[0]}")


def _cached(name: str, fetch: Callable[[Path], None]) -> Path:
    """The cache's folder `name`; two processes fetch it once, and a broken download leaves nothing."""
    home = cache_dir() / name
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(home.parent / f".{name}.lock"):
        if not home.is_dir():
            with tempfile.TemporaryDirectory(dir=home.parent, prefix=f".{name}-", ignore_cleanup_errors=True) as temp:
                filled = Path(temp) / name
                filled.mkdir()
                fetch(filled)
                filled.rename(home)
    return home


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
