"""The command line: its root, its global options and what becomes of an error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from streampipe.cli import capture, consume, describe, dlq, lag, produce, replay, run, state, topic
from streampipe.cli.logs import LogLines
from streampipe.cli.output import Output
from streampipe.cli.session import Session
from streampipe.errors import StreampipeError

app = typer.Typer(
    name="streampipe",
    help="Event pipelines on Kafka in plain Python.",
    epilog="The options above may stand anywhere in the line. Without a broker, an embedded one is used: "
    ".streampipe/broker.db in this folder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (run, describe, topic, produce, consume, capture, lag, dlq, state, replay):
    module.add_to(app)

GLOBAL_OPTIONS = {"--broker", "--registry", "--config"}
GLOBAL_FLAGS = {"--debug", "--quiet"}


@app.callback()
def root(
    context: typer.Context,
    broker: Annotated[
        str | None, typer.Option(help="local:PATH or kafka:HOST:PORT[,HOST:PORT]", metavar="ADDRESS")
    ] = None,
    registry: Annotated[str | None, typer.Option(help="local:PATH or http(s)://HOST:PORT", metavar="ADDRESS")] = None,
    config: Annotated[str | None, typer.Option(help="Settings file (default: streampipe.toml)", metavar="FILE")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything, and show where errors come from")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only data and errors")] = False,
) -> None:
    """Event pipelines on Kafka in plain Python."""
    level = logging.DEBUG if debug else logging.ERROR if quiet else logging.INFO
    out = Output(quiet=quiet)
    root_logger = logging.getLogger()
    root_logger.handlers = [*(h for h in root_logger.handlers if not isinstance(h, LogLines)), LogLines(out)]
    logging.getLogger("streampipe").setLevel(level)
    context.obj = Session(out, config, {"broker": broker, "registry": registry}, debug)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code (see `streampipe.errors`)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        code = app(args=hoisted(given), prog_name="streampipe", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except typer.TyperException as error:  # a wrong command line
        _show_usage(error)
        return error.exit_code
    except StreampipeError as error:
        if debug:
            logging.getLogger("streampipe").debug("raised here", exc_info=error)
        Output().error(str(error))
        return error.exit_code
    except Exception as error:  # the last line of defence: people get a line, not a traceback
        if debug:
            logging.getLogger("streampipe").exception("raised here")
        hint = "" if debug else "; run again with --debug to see where"
        Output().error(f"{type(error).__name__}: {error}{hint}")
        return 1
    return 0


def _show_usage(error: typer.TyperException) -> None:
    """One line, and where to read on; nothing more where the help itself was the answer to no arguments."""
    command = getattr(getattr(error, "ctx", None), "command_path", "streampipe")
    message = error.format_message().strip()
    if message and "\n" not in message:
        Output().error(f"{message.rstrip('.')}; see: {command} --help")


def hoisted(arguments: Sequence[str]) -> list[str]:
    """The same line with the global options first, so that they may be written anywhere before a `--`."""
    front: list[str] = []
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            rest += [argument, *left]
        elif argument in GLOBAL_OPTIONS:
            front += [argument, *([value] if (value := next(left, None)) is not None else [])]
        elif argument in GLOBAL_FLAGS or argument.partition("=")[0] in GLOBAL_OPTIONS:
            front.append(argument)
        else:
            rest.append(argument)
    return [*front, *rest]


if __name__ == "__main__":
    sys.exit(main())
