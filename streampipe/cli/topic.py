"""streampipe topic create | list | describe."""

from __future__ import annotations

from typing import Annotated

import typer

from streampipe.cli.session import existing_topic, session_of
from streampipe.errors import ConfigError
from streampipe.records import TopicPartition

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table")]


def add_to(app: typer.Typer) -> None:
    """Add this group of commands."""
    group = typer.Typer(help="Create, list and describe topics.", no_args_is_help=True)
    group.command("create", epilog="Example: streampipe topic create flights --partitions 4")(create)
    group.command("list", epilog="Example: streampipe topic list --json")(list_topics)
    group.command("describe", epilog="Example: streampipe topic describe flights")(describe)
    app.add_typer(group, name="topic")


def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the topic")],
    partitions: Annotated[int, typer.Option(min=1, help="Number of partitions")] = 1,
    config: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Topic setting, e.g. cleanup.policy=compact")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Create a topic. One that exists already is left as it is, unless its partition count differs."""
    session = session_of(context)
    settings = dict(_setting(text) for text in config or [])
    with session.admin() as admin:
        created = admin.create_topic(name, partitions, settings)
        there = existing_topic(admin, name)
    if there != partitions:
        raise ConfigError(
            f"topic {name!r} exists already with {there} partitions, not {partitions}; nothing was changed"
        )
    if as_json:
        session.out.json({"topic": name, "partitions": there, "created": created})
    else:
        session.out.note(f"topic {name} {'created' if created else 'exists already'}, {there} partition(s)")


def list_topics(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List the topics, their partitions and how many offsets they hold."""
    session = session_of(context)
    rows = []
    with session.admin() as admin:
        for topic, count in sorted(admin.topics().items()):
            partitions = [TopicPartition(topic, p) for p in range(count)]
            first, last = admin.offsets(partitions, "earliest"), admin.offsets(partitions, "latest")
            rows.append({"topic": topic, "partitions": count, "records": sum(last[p] - first[p] for p in partitions)})
    headings = {"topic": "topic", "partitions": "partitions", "records": "records (at most)"}
    session.out.data(headings, rows, as_json=as_json)


def describe(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Name of the topic")], as_json: JsonFlag = False
) -> None:
    """Show partitions, offsets and settings of a topic.

    The count of records is the distance of the offsets: an upper bound, since compaction and transactions leave gaps.
    """
    session = session_of(context)
    with session.admin() as admin:
        topic = admin.describe_topic(name)
        partitions = [TopicPartition(name, p) for p in range(topic.partitions)]
        first, last = admin.offsets(partitions, "earliest"), admin.offsets(partitions, "latest")
    rows = [
        {"partition": p.partition, "earliest": first[p], "latest": last[p], "records": last[p] - first[p]}
        for p in partitions
    ]
    if as_json:
        session.out.json({"topic": name, "config": dict(topic.config), "partitions": rows})
        return
    for key, value in sorted(topic.config.items()):
        session.out.note(f"{key} = {value}")
    session.out.rows({"partition": "partition", "earliest": "earliest", "latest": "latest", "records": "records"}, rows)


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigError(f"--set {text}: write KEY=VALUE, e.g. cleanup.policy=compact")
    return key, value
