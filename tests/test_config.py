from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streampipe import config
from streampipe.config import Settings, load, redacted
from streampipe.errors import ConfigError

CANARY = "c4nary-7f3a"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "streampipe.toml") -> Path:
    path = Path(name)
    path.write_text(text)
    return path


def test_without_any_source_the_defaults_hold() -> None:
    assert load(environment={}) == Settings()


def test_flags_win_over_the_environment_over_the_file_over_the_defaults() -> None:
    write("batch_size = 1\ncommit_interval_ms = 11\nmax_poll_wait_ms = 21")
    environment = {"STREAMPIPE_BATCH_SIZE": "2", "STREAMPIPE_COMMIT_INTERVAL_MS": "12"}
    settings = load(environment=environment, flags={"batch_size": 3, "guarantee": None})
    assert (settings.batch_size, settings.commit_interval_ms, settings.max_poll_wait_ms) == (3, 12, 21)
    assert settings.transaction_timeout_ms == Settings().transaction_timeout_ms


def test_kafka_settings_merge_key_by_key_over_the_sources() -> None:
    write('[kafka]\n"linger.ms" = 5\nsasl.mechanism = "PLAIN"\nenable.idempotence = true')
    environment = {"STREAMPIPE_KAFKA_LINGER_MS": "9", "STREAMPIPE_KAFKA_CLIENT_ID": "x"}
    kafka = {"linger.ms": "9", "sasl.mechanism": "PLAIN", "enable.idempotence": "true", "client.id": "x"}
    assert load(environment=environment).kafka == kafka


def test_the_registry_table_holds_the_address_and_the_options_of_the_client() -> None:
    write('[registry]\nurl = "http://127.0.0.1:8081"\n"basic.auth.user.info" = "env:LOGIN"')
    settings = load(environment={"LOGIN": f"me:{CANARY}", "STREAMPIPE_REGISTRY_TIMEOUT": "7"})
    assert settings.registry == "http://127.0.0.1:8081"
    assert settings.registry_options == {"basic.auth.user.info": f"me:{CANARY}", "timeout": "7"}


@pytest.mark.parametrize(
    ("broker", "registry"),
    [
        ("local:/data/x.db", "local:/data/registry.db"),
        ("local:x.db", "local:registry.db"),
        ("kafka:h:1", config.DEFAULT_REGISTRY),
    ],
)
def test_the_registry_of_a_local_broker_is_the_file_beside_it(broker: str, registry: str) -> None:
    assert load(environment={"STREAMPIPE_BROKER": broker}).registry == registry
    assert load(environment={}, flags={"broker": broker, "registry": "http://r"}).registry == "http://r"


BAD_FILES = {
    "batch_sise = 3": "streampipe.toml: unknown key 'batch_sise'; the nearest known one is 'batch_size'",
    "verbose = 3": "streampipe.toml: unknown key 'verbose'; docs/operating.md lists the known ones",
    "batch_size = '3'": "streampipe.toml: batch_size is '3'; it must be a whole number",
    "batch_size = true": "it must be a whole number",
    "batch_size = 0": "batch_size is 0; it must be at least 1",
    "create_topics = 1": "it must be true or false",
    "broker = ''": "it must be text",
    "guarantee = 'maybe'": "guarantee is 'maybe'; it must be one of exactly-once, at-least-once",
    "http_port = 70000": "ports go from 0",
    "http_port = 'x'": "a whole number or none",
    "transaction_timeout_ms = 10": "transaction_timeout_ms is 10; it must be at least 1000",
    "kafka = 3": "unknown key 'kafka'",
    "[kafka]\nx = [1]": "streampipe.toml, [kafka]: key 'x' must be text",
    "[kafka": "streampipe.toml: not valid TOML",
    "[kafka]\n'sasl.password' = 'env:GONE'": "[kafka] sasl.password refers to env:GONE, but the environment has no",
    "[kafka]\n'sasl.password' = 'file:gone'": "[kafka] sasl.password refers to file:gone, but that file cannot be",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_wrong_file_is_an_error_of_one_line_that_names_source_and_key(text: str) -> None:
    write(text)
    with pytest.raises(ConfigError) as raised:
        load(environment={})
    assert BAD_FILES[text] in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_was_asked_for_must_be_readable() -> None:
    for file, environment in (("gone.toml", {}), (None, {"STREAMPIPE_CONFIG": "gone.toml"})):
        with pytest.raises(ConfigError, match=r"gone\.toml: cannot be read"):
            load(file, environment)


def test_an_unknown_or_malformed_variable_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"STREAMPIPE_BATCHSIZE: unknown key 'batchsize'.*'batch_size'"):
        load(environment={"STREAMPIPE_BATCHSIZE": "3"})
    with pytest.raises(ConfigError, match=r"STREAMPIPE_FOO: unknown key 'foo'; docs/operating\.md lists"):
        load(environment={"STREAMPIPE_FOO": "3"})
    with pytest.raises(ConfigError, match="STREAMPIPE_BATCH_SIZE: batch_size is 'many'"):
        load(environment={"STREAMPIPE_BATCH_SIZE": "many"})


@given(st.sampled_from(config.SCALARS), st.data())
def test_every_scalar_setting_can_come_from_the_environment(name: str, data: st.DataObject) -> None:
    default = getattr(Settings(), name)
    if isinstance(default, bool):
        value: object = data.draw(st.booleans())
    elif isinstance(default, int):
        value = default + data.draw(st.integers(0, 50))
    else:
        choices = typing.get_args(config.TYPES[name]) or ("x:y",)
        value = data.draw(st.sampled_from(choices))
    assert getattr(load(environment={f"STREAMPIPE_{name.upper()}": str(value)}), name) == value


def test_no_port_can_be_asked_for_in_every_source() -> None:
    write("http_port = 'none'")
    assert load(environment={}).http_port is None
    assert load(environment={"STREAMPIPE_HTTP_PORT": "none"}, flags={}).http_port is None


SECRETS = {
    "sasl.password", "sasl.username", "ssl.key.password", "ssl.key.pem", "ssl.keystore.password", "ssl.ca.pem",
    "sasl.oauthbearer.config", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.assertion.private.key.passphrase",
    "basic.auth.user.info", "bearer.auth.token",
}  # fmt: skip


@pytest.mark.parametrize("key", sorted(SECRETS))
@pytest.mark.parametrize("table", ["kafka", "registry"])
def test_a_secret_shows_in_no_printed_form_of_the_settings(table: str, key: str) -> None:
    Path("secret").write_text(CANARY + "\n")
    for value in (CANARY, "env:SECRET", "file:secret"):
        write(f'[{table}]\n"{key}" = "{value}"')
        settings = load(environment={"SECRET": CANARY})
        values = settings.kafka if table == "kafka" else settings.registry_options
        assert values[key] == CANARY
        assert CANARY not in f"{settings!r}{settings}{redacted(settings)}{values}{dataclasses.asdict(settings)}"


def test_a_referenced_value_is_secret_whatever_its_key() -> None:
    write('[kafka]\n"client.id" = "env:SECRET"')
    settings = load(environment={"SECRET": CANARY})
    assert settings.kafka["client.id"] == CANARY
    assert CANARY not in f"{settings!r}{redacted(settings)}"


def test_the_login_in_an_address_is_masked() -> None:
    settings = load(environment={"STREAMPIPE_REGISTRY": f"https://me:{CANARY}@registry:8081/x"})
    assert redacted(settings)["registry"] == "https://***@registry:8081/x"
    assert CANARY not in repr(settings)


def test_a_broken_reference_names_the_reference_and_not_a_value() -> None:
    Path("folder").mkdir()
    write('[kafka]\n"sasl.password" = "file:folder"')
    with pytest.raises(ConfigError, match="file:folder"):
        load(environment={})


def test_a_host_open_to_the_network_is_cautioned_against() -> None:
    assert config.cautions(Settings()) == config.cautions(Settings(http_host="::1")) == []
    assert config.cautions(Settings(http_host="0.0.0.0", http_port=None)) == []
    assert "open to the network" in config.cautions(Settings(http_host="0.0.0.0"))[0]


def test_commits_so_rare_that_output_waits_in_memory_are_cautioned_against() -> None:
    assert "waits in memory" in config.cautions(Settings(commit_interval_ms=3_001))[0]
    assert config.cautions(Settings(commit_interval_ms=3_000)) == []
    assert config.cautions(Settings(commit_interval_ms=9_000, guarantee="at-least-once")) == []
