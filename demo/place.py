"""Where the demo's topics live, and how its commands reach them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from demo.dataset import ROOT
from streampipe import config
from streampipe.brokers.opening import open_broker
from streampipe.brokers.port import Broker
from streampipe.cli.main import main
from streampipe.errors import StreampipeError, Unavailable
from streampipe.schemas.registry import open_registry

COMMAND = (sys.executable, "-m", "streampipe.cli.main")


class CommandFailed(StreampipeError):
    """A streampipe command of the demo ended with an error."""


@dataclass(frozen=True, slots=True)
class Place:
    """Addresses of a broker and a registry, as in streampipe's settings."""

    broker: str
    registry: str

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, pointed at the place; metrics on any free port."""
        ours = {"STREAMPIPE_BROKER": self.broker, "STREAMPIPE_REGISTRY": self.registry, "STREAMPIPE_HTTP_PORT": "0"}
        return {**os.environ, **ours, "PYTHONPATH": str(ROOT)}

    def open(self) -> Broker:
        """The broker itself, for what has no command: raw bytes and progress."""
        settings = config.load(environment=self.environment)
        return open_broker(settings.broker, settings.kafka, transaction_timeout_ms=settings.transaction_timeout_ms)

    @retry(retry=retry_if_exception_type(Unavailable), wait=wait_fixed(1), stop=stop_after_delay(90), reraise=True)
    def wait(self, schemas: Mapping[str, str]) -> None:
        """Return once the broker answers and the registry has these schemas, by subject; both may be starting.

        Raises Unavailable when they do not within 90 s.
        """
        settings = config.load(environment=self.environment)
        with closing(self.open().admin()) as admin:
            admin.topics()
        with closing(open_registry(settings.registry, settings.registry_options)) as registry:
            for subject, text in schemas.items():
                registry.register(subject, text)

    def streampipe(self, *arguments: str) -> str:
        """Standard output of one streampipe command, run in this process to save its start-up.

        Raises CommandFailed with the last line that it complained in.
        """
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--broker", self.broker, "--registry", self.registry, *arguments])
        if code:
            lines = err.getvalue().strip().splitlines() or ["no message"]
            raise CommandFailed(f"streampipe {' '.join(arguments)}: exit code {code}: {lines[-1]}")
        return out.getvalue()
