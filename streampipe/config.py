"""Settings: where they come from and what they mean.

Precedence: flags, then the environment, then streampipe.toml, then the defaults below. In the environment a setting
is STREAMPIPE_<NAME>, a librdkafka setting STREAMPIPE_KAFKA_<KEY> and one of the registry client
STREAMPIPE_REGISTRY_<KEY>, dots written as underscores. In streampipe.toml the top-level keys are the fields of
`Settings`; the table [kafka] holds librdkafka's settings; [registry] those of the registry client, its `url` being
the address (`registry = "..."` says the address alone). Whatever is unknown or malformed is a ConfigError.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

from streampipe.errors import ConfigError
from streampipe.policies import Guarantee

DEFAULT_BROKER = "local:.streampipe/broker.db"
DEFAULT_REGISTRY = "local:.streampipe/registry.db"
DEFAULT_FILE = "streampipe.toml"
PREFIX = "STREAMPIPE_"
NO_SETTING = ("STREAMPIPE_CONFIG", "STREAMPIPE_TEST_", "STREAMPIPE_REQUIRE_", "STREAMPIPE_STACK_")
"""Variables with our prefix that are no setting: the path of the file, and what the test suite listens to."""

SENSITIVE = re.compile(
    r"^ssl\.key\.|\.pem$|^sasl\.username$|^sasl\.oauthbearer\.config$|user\.info|password|secret|token|private\.key"
)
"""librdkafka's own set of sensitive keys, and the registry client's."""
MASK = "***"


class Secret(str):
    """Text that does not show in a repr, and so in no traceback with locals and no printed mapping."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{MASK}'"


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """Everything about a deployment that is not in the processor module. Times in milliseconds unless named."""

    broker: str = DEFAULT_BROKER
    """local:PATH of a file, or kafka:HOST:PORT[,HOST:PORT]."""
    registry: str = DEFAULT_REGISTRY
    """local:PATH of a file, or the http(s) address of a registry with the Confluent API. Unset and with a local
    broker: the file registry.db beside the broker's."""
    schemas: str = "schemas"
    """Folder of .avsc files: <topic>.avsc is the schema of a topic's values."""
    guarantee: Guarantee = "exactly-once"
    batch_size: int = 10_000
    """Records handled at a time, at most."""
    commit_interval_ms: int = 1_000
    max_poll_wait_ms: int = 100
    transaction_timeout_ms: int = 15_000
    state: Literal["memory", "rocksdb"] = "memory"
    """Where tables, aggregates by key, tumbling and hopping windows and functions keep what they know; rocksdb needs
    the extra of that name. Sessions, sliding windows and joins of streams are in memory with either."""
    state_dir: str = ".streampipe/state"
    """Folder of state on disk: <processor>/<slot>/<store>/<partition> in it, and what was kept for the next start."""
    state_memory_mb: int = 256
    """MiB that all state of a worker shares with rocksdb: half for its cache and write buffers, half for the entries
    that are in use."""
    standbys: int = 0
    """Copies of state that other workers keep up to date, to take over within seconds."""
    create_topics: bool = True
    """Create missing output, dead-letter and internal topics; input topics must exist."""
    latency_target_ms: int = 5_000
    """End-to-end latency that counts as good; it becomes an exact bucket bound of the latency histogram."""
    http_host: str = "127.0.0.1"
    http_port: int | None = 9464
    """Port of /metrics, /livez and /readyz of worker 0; worker n uses port + n. None serves nothing."""
    kafka: Mapping[str, str] = field(default_factory=dict)
    """librdkafka settings passed to every client."""
    registry_options: Mapping[str, str] = field(default_factory=dict)
    """Settings of the registry client, Confluent's names."""

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in redacted(self).items())})"


MAPPINGS = ("kafka", "registry_options")
TYPES: dict[str, object] = typing.get_type_hints(Settings)
SCALARS = tuple(name for name in TYPES if name not in MAPPINGS)

KINDS: dict[object, str] = {str: "text", int: "a whole number", bool: "true or false"}
BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}

Layer = tuple[dict[str, object], dict[str, dict[str, str]]]
"""What one source says: scalar settings by name, and the mappings by name."""


def load(
    file: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Settings of this process; `flags` that are None were not given. Raises ConfigError naming the source and key.

    Without `file` the path is STREAMPIPE_CONFIG, else streampipe.toml in this folder if it is there.
    """
    variables = os.environ if environment is None else environment
    layers = [_file_layer(file or variables.get("STREAMPIPE_CONFIG")), _environment_layer(variables)]
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    layers.append(({name: _typed("flag", name, value) for name, value in given.items()}, {}))

    scalars: dict[str, object] = {}
    mappings: dict[str, dict[str, str]] = {name: {} for name in MAPPINGS}
    for layer_scalars, layer_mappings in layers:
        scalars |= layer_scalars
        for name, values in layer_mappings.items():
            mappings[name] |= values
    for name, values in mappings.items():
        mappings[name] = {key: _resolved(name, key, value, variables) for key, value in values.items()}
    if "registry" not in scalars:
        scalars["registry"] = _registry_beside(str(scalars.get("broker", DEFAULT_BROKER)))
    settings = Settings(**scalars, **mappings)  # type: ignore[arg-type]  # each value was checked against its type
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """Raise ConfigError for values that cannot work, alone or together."""
    for name, least in (
        ("batch_size", 1), ("commit_interval_ms", 1), ("max_poll_wait_ms", 0), ("latency_target_ms", 1),
        ("transaction_timeout_ms", 1_000), ("state_memory_mb", 8), ("standbys", 0),
    ):  # fmt: skip
        if getattr(settings, name) < least:
            raise ConfigError(f"{name} is {getattr(settings, name)}; it must be at least {least}")
    if settings.http_port is not None and not 0 <= settings.http_port <= 65_535:
        raise ConfigError(f"http_port is {settings.http_port}; ports go from 0 (any free one) to 65535, or none")


def cautions(settings: Settings) -> list[str]:
    """One line for each setting that works but should be noticed."""
    found = []
    if settings.guarantee == "exactly-once" and 5 * settings.commit_interval_ms > settings.transaction_timeout_ms:
        found.append(
            f"commit_interval_ms {settings.commit_interval_ms} is more than a fifth of transaction_timeout_ms "
            f"{settings.transaction_timeout_ms}: output waits in memory between commits"
        )
    if settings.http_port is not None and not _is_loopback(settings.http_host):
        found.append(
            f"http_host is {settings.http_host}: metrics and health are open to the network, without authentication; "
            f"the default 127.0.0.1 keeps them on this machine"
        )
    return found


def redacted(settings: Settings) -> dict[str, object]:
    """The settings as plain values for printing, secrets masked."""
    shown: dict[str, object] = {name: getattr(settings, name) for name in SCALARS}
    shown["broker"] = redacted_address(settings.broker)
    shown["registry"] = redacted_address(settings.registry)
    for name in MAPPINGS:
        values: Mapping[str, str] = getattr(settings, name)
        shown[name] = {key: _masked(key, value) for key, value in values.items()}
    return shown


def redacted_address(address: str) -> str:
    """An address without user name and password."""
    return re.sub(r"//[^@/\s]*@", f"//{MASK}@", address)


def _masked(key: str, value: str) -> str:
    hidden = isinstance(value, Secret) or SENSITIVE.search(key.lower())
    return MASK if hidden else redacted_address(value)


def _registry_beside(broker: str) -> str:
    kind, _, path = broker.partition(":")
    return f"local:{PurePath(path).parent / 'registry.db'}" if kind == "local" and path else DEFAULT_REGISTRY


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _file_layer(file: str | os.PathLike[str] | None) -> Layer:
    path = Path(file or DEFAULT_FILE)
    if file is None and not path.is_file():
        return {}, {}
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    scalars: dict[str, object] = {}
    mappings: dict[str, dict[str, str]] = {}
    for key, value in content.items():
        if key == "kafka" and isinstance(value, dict):
            mappings["kafka"] = dict(_flat(f"{path}, [kafka]", value))
        elif key == "registry" and isinstance(value, dict):
            mappings["registry_options"] = options = dict(_flat(f"{path}, [registry]", value))
            if "url" in options:
                scalars["registry"] = options.pop("url")
        else:
            scalars[key] = _typed(str(path), key, value)
    return scalars, mappings


def _flat(source: str, table: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, str]]:
    """The table's values as text; TOML reads `sasl.password = ""` as a table in a table, which is the same key."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _flat(source, value, f"{name}.")
        elif isinstance(value, bool):
            yield name, str(value).lower()
        elif isinstance(value, str | int | float):
            yield name, str(value)
        else:
            raise ConfigError(f"{source}: key {name!r} must be text, a number or true/false")


def _environment_layer(variables: Mapping[str, str]) -> Layer:
    scalars: dict[str, object] = {}
    mappings: dict[str, dict[str, str]] = {name: {} for name in MAPPINGS}
    tables = {"kafka_": "kafka", "registry_": "registry_options"}
    for variable, value in variables.items():
        if not variable.startswith(PREFIX) or variable.startswith(NO_SETTING):
            continue
        name = variable.removeprefix(PREFIX).lower()
        table = next((known for known in tables if name.startswith(known)), None)
        if table is not None and len(name) > len(table):
            mappings[tables[table]][name.removeprefix(table).replace("_", ".")] = value
        else:
            scalars[name] = _typed(f"environment variable {variable}", name, _parsed(name, value))
    return scalars, mappings


def _typed(source: str, name: str, value: object) -> object:
    """The value, if it is of its setting's type."""
    if name not in SCALARS:
        near = difflib.get_close_matches(name, [*SCALARS, "kafka"], n=1, cutoff=0.6)
        known = f"the nearest known one is {near[0]!r}" if near else "docs/operating.md lists the known ones"
        raise ConfigError(f"{source}: unknown key {name!r}; {known}")
    kind = TYPES[name]
    optional = typing.get_origin(kind) is types.UnionType
    if optional and value == "none":  # TOML has no null
        return None
    choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else None
    wanted = int if optional else str if choices else kind
    if type(value) is not wanted or value == "" or (choices and value not in choices):
        expected = f"one of {', '.join(choices)}" if choices else KINDS[wanted] + (" or none" if optional else "")
        raise ConfigError(f"{source}: {name} is {value!r}; it must be {expected}")
    return value


def _parsed(name: str, text: str) -> object:
    """Text of the environment as its setting's type where it looks like one, else as it is."""
    kind = TYPES.get(name)
    if kind is bool:
        return BOOLEANS.get(text.lower(), text)
    if kind is not str and re.fullmatch(r"-?[0-9]+", text):
        return int(text)
    return text


def _resolved(table: str, key: str, value: str, variables: Mapping[str, str]) -> str:
    """The value itself, or what the reference env:NAME or file:PATH stands for."""
    kind, _, name = value.partition(":")
    if kind not in ("env", "file"):
        return Secret(value) if SENSITIVE.search(key.lower()) else value
    where = "registry" if table == "registry_options" else table
    problem = f"[{where}] {key} refers to {value}"
    if kind == "env":
        found = variables.get(name)
        if found is None:
            raise ConfigError(f"{problem}, but the environment has no variable {name}")
        return Secret(found)
    try:
        return Secret(Path(name).read_text("utf-8").rstrip("\r\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{problem}, but that file cannot be read as text") from error


__all__ = ["Secret", "Settings", "cautions", "check", "load", "redacted", "redacted_address"]
