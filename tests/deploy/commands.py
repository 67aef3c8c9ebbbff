"""Command lines as the typer app reads them, without running them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from streampipe.cli.main import app


def find(words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command that the first words name, and what is left of them. Raises KeyError when there is none."""
    command: Any = typer.main.get_command(app)
    left = list(words)
    while hasattr(command, "commands"):
        command = command.commands[left.pop(0)]
    return command, left


def parse(words: Sequence[str]) -> Any:
    """The context of a command line. Raises UsageError for options that do not exist and arguments that lack."""
    command, left = find(words)
    return command.make_context(command.name, left)
