"""Questions to a broker whose group coordinator is not there yet."""

from __future__ import annotations

import subprocess
import sys

import pytest

from streampipe.testing.stack import Stack

ASK = """
import sys
from streampipe.brokers.opening import open_broker
admin = open_broker(sys.argv[1]).admin()
admin.create_topic("some", 2)
assert admin.committed("nobody") == {}
admin.close()
"""


@pytest.mark.kafka
@pytest.mark.slow
def test_offsets_of_a_group_can_be_asked_of_a_broker_that_just_started() -> None:
    """In a process of its own, since librdkafka's own call for it crashes the process (its issue 5040)."""
    with Stack() as stack:
        child = subprocess.run(
            [sys.executable, "-c", ASK, f"kafka:{stack.bootstrap}"], capture_output=True, text=True, timeout=60
        )
    assert child.returncode == 0, child.stderr
