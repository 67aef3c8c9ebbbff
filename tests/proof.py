"""How much the laws are put to the test: some in `make test`, fifty times as much in `make prove`."""

from __future__ import annotations

import os

import pytest

PROVING = os.environ.get("STREAMPIPE_PROVE") == "1"
EXAMPLES = int(os.environ.get("STREAMPIPE_EXAMPLES") or (100_000 if PROVING else 2_000))
"""Examples of a law: @settings(max_examples=EXAMPLES), marked `proof`. STREAMPIPE_EXAMPLES sets another number.

A law of dear examples takes a share of them, EXAMPLES // 2 and so on, so that it takes less than 25 s on an idle core.
"""
patient = pytest.mark.timeout(0 if PROVING else 900)
"""Of a law that takes more than ten seconds, which a machine that others use as well makes minutes."""
