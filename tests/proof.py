"""How much the laws are put to the test: some in `make test`, fifty times as much in `make prove`."""

from __future__ import annotations

import os

PROVING = os.environ.get("STREAMPIPE_PROVE") == "1"
EXAMPLES = int(os.environ.get("STREAMPIPE_EXAMPLES") or (100_000 if PROVING else 2_000))
"""Examples of a law: @settings(max_examples=EXAMPLES), marked `proof`. STREAMPIPE_EXAMPLES sets another number."""
