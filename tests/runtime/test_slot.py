"""Slots are unique among live workers of a processor, and come back however a worker ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streampipe.errors import ConfigError
from streampipe.runtime.slot import claimed_slot

HOLDER = """
import sys
from streampipe.runtime.slot import claimed_slot
with claimed_slot("kafka:b:1", "app", 0) as slot:
    print(slot, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_workers_of_one_processor_get_slots_of_their_own_and_others_are_not_asked() -> None:
    with claimed_slot("kafka:b:1", "app", 0) as first, claimed_slot("kafka:b:1", "app", 0) as second:
        assert (first, second) == (0, 1)
        with claimed_slot("kafka:b:1", "other", 0) as other, claimed_slot("kafka:c:1", "app", 0) as elsewhere:
            assert (other, elsewhere) == (0, 0)
        with claimed_slot("kafka:b:1", "app", 5) as sixth:
            assert sixth == 5


def test_a_slot_is_free_again_when_its_process_was_killed() -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"0\n"
        with claimed_slot("kafka:b:1", "app", 0) as slot:
            assert slot == 1
    finally:
        holder.kill()
        holder.communicate()
    with claimed_slot("kafka:b:1", "app", 0) as slot:
        assert slot == 0


def test_a_folder_that_is_a_link_is_refused(own_folder: Path) -> None:
    (own_folder / f"streampipe-{os.getuid()}").symlink_to(own_folder)
    with pytest.raises(ConfigError, match="TMPDIR"), claimed_slot("kafka:b:1", "app", 0):
        pass
