"""docker-compose.yml, the Dockerfile and the dashboards say only what the code can do; no container engine needed."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from streampipe import Processor, config
from streampipe.observe.metrics import PrometheusObserver
from tests.deploy.commands import parse

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BUILT = {name: service for name, service in SERVICES.items() if "build" in service}
WORKERS = {name: service for name, service in BUILT.items() if "command" in service}
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))


def settings_of(service: dict[str, Any]) -> config.Settings:
    return config.load(environment={key: str(value) for key, value in service["environment"].items()})


def test_the_compose_file_is_valid_by_the_published_schema() -> None:
    schema = json.loads((Path(__file__).parent / "data/compose-spec.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)


def test_the_schema_would_refuse_a_misspelt_key() -> None:
    schema = json.loads((Path(__file__).parent / "data/compose-spec.json").read_text())
    broken = {"services": {"kafka": {"image": "x", "comand": ["y"]}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(broken)


def test_there_is_a_worker_for_each_processor_of_the_folder() -> None:
    modules = {service["command"][1] for service in WORKERS.values()}
    written = {
        f"processors.{path.stem}" for path in (ROOT / "processors").glob("*.py") if "Processor(" in path.read_text()
    }
    assert modules == written


@pytest.mark.parametrize("name", WORKERS)
def test_a_workers_command_line_is_one_that_the_program_takes(name: str) -> None:
    parsed = parse(WORKERS[name]["command"])
    assert parsed.command.name == "run"
    module = importlib.import_module(WORKERS[name]["command"][1])
    assert isinstance(module.processor, Processor)
    assert module.processor.name == name


def test_an_unknown_flag_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option: --no-such-flag"):
        parse(["run", "processors.delay_alerts", "--no-such-flag"])


@pytest.mark.parametrize("name", BUILT)
def test_every_variable_is_a_setting(name: str) -> None:
    settings = settings_of(BUILT[name])
    assert settings.broker.startswith("kafka:")
    assert settings.registry.startswith("http://")


@pytest.mark.parametrize("name", BUILT)
def test_an_address_is_one_that_the_addressed_service_listens_on(name: str) -> None:
    settings = settings_of(BUILT[name])
    kafka_host, _, kafka_port = settings.broker.removeprefix("kafka:").partition(":")
    listeners = SERVICES[kafka_host]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert f"INSIDE://{kafka_host}:{kafka_port}" in listeners
    registry = urlsplit(settings.registry)
    inside = {mapping.rpartition(":")[2] for mapping in SERVICES[registry.hostname or ""]["ports"]}
    assert str(registry.port) in inside
    assert registry.path == "/apis/ccompat/v7"


@pytest.mark.parametrize("name", [n for n, s in BUILT.items() if "entrypoint" in s])
def test_a_module_that_is_started_exists(name: str) -> None:
    python, flag, module, *rest = BUILT[name]["entrypoint"]
    assert (python, flag, rest) == ("python", "-m", [])
    assert importlib.util.find_spec(module) is not None


def test_prometheus_scrapes_every_worker_at_the_port_it_serves() -> None:
    scraped = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    targets = {target for job in scraped for static in job["static_configs"] for target in static["targets"]}
    assert targets == {f"{name}:{settings_of(service).http_port}" for name, service in WORKERS.items()}


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_answers_its_health_check(name: str) -> None:
    probe = WORKERS[name]["healthcheck"]["test"][-1]
    url = urlsplit(re.findall(r"http://[^']+", probe)[0])
    assert url.port == settings_of(WORKERS[name]).http_port
    assert url.path == "/livez"
    assert settings_of(WORKERS[name]).http_host == "0.0.0.0"  # else Prometheus, in its own container, sees nothing


def test_ports_are_open_on_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_mounted_files_exist() -> None:
    mounts = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]
    for mount in mounts:
        assert mount in COMPOSE["volumes"] or (ROOT / mount).exists(), mount


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.stem)
def test_a_dashboard_asks_only_for_metrics_that_workers_export(path: Path) -> None:
    exported = {
        name
        for family in PrometheusObserver("x", ["topic"]).registry.collect()
        for name in (family.name, f"{family.name}_total", f"{family.name}_bucket", f"{family.name}_info")
    }
    dashboard = path.read_text()
    asked = {
        name
        for expression in re.findall(r'"(?:expr|query)": "((?:[^"\\]|\\.)*)"', dashboard)
        for name in re.findall(r"(?<![{\w])streampipe_\w+", expression)
    }
    assert len(asked) >= 8
    assert asked <= exported


def test_the_dashboards_data_source_is_provisioned_and_points_at_prometheus() -> None:
    (source,) = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    url = urlsplit(source["url"])
    assert url.hostname in SERVICES
    for path in DASHBOARDS:
        assert {panel["datasource"]["uid"] for panel in json.loads(path.read_text())["panels"]} == {source["uid"]}


def test_the_image_runs_without_rights_from_locked_packages_and_existing_files() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert users[-1] not in {"0", "root"}
    assert any("--require-hashes -r requirements.lock" in line for line in lines)
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source for line in lines if line.startswith("COPY ") and "--from=" not in line for source in line.split()[1:-1]
    }
    assert copied == let_through
    assert all((ROOT / source).exists() for source in copied)
    assert any(line.startswith("EXPOSE ") and line.split()[1] == str(config.Settings().http_port) for line in lines)
