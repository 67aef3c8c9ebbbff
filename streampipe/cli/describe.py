"""streampipe describe."""

from __future__ import annotations

from typing import Annotated

import typer

from streampipe.cli.run import Module
from streampipe.cli.session import session_of
from streampipe.cli.topic import JsonFlag
from streampipe.errors import ConfigError
from streampipe.runtime.load import load_processor
from streampipe.runtime.topics import external_inputs
from streampipe.topology.describe import describe as described
from streampipe.topology.describe import detail, mermaid
from streampipe.topology.nodes import Repartition, Sink, Stateful, Topology


def add_to(app: typer.Typer) -> None:
    """Add this command."""
    app.command("describe", epilog="Example: streampipe describe processors/flights_enriched.py --mermaid")(describe)


def describe(
    context: typer.Context,
    module: Module,
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flow chart")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what a processor does: its nodes, sub-topologies and topics. Asks neither broker nor registry."""
    if as_mermaid and as_json:
        raise ConfigError("--mermaid and --json exclude each other")
    topology = load_processor(module).topology
    out = session_of(context).out
    if as_json:
        out.json(_plain(topology))
    else:
        out.line((mermaid(topology) if as_mermaid else described(topology)).rstrip())


def _plain(topology: Topology) -> dict[str, object]:
    return {
        "processor": topology.app_id,
        "version": topology.version,
        "inputs": external_inputs(topology),
        "outputs": sorted({node.topic for node in topology.of(Sink)}),
        "dead_letters": topology.dead_letter_topic,
        "internal": [n.topic for n in topology.of(Repartition)] + [n.changelog for n in topology.of(Stateful)],
        "nodes": [
            {"name": n.name, "kind": n.kind, "detail": detail(n), "inputs": [i.name for i in n.inputs]}
            for n in topology.nodes
        ],
    }
