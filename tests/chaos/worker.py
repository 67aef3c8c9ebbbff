"""The command line in a process that does not outlive its parent: python -m tests.chaos.worker PARENT ARGUMENTS."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys

from streampipe.cli.main import main
from tests.chaos import failpoints

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent = int(sys.argv.pop(1))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone already")
    faulthandler.register(signal.SIGUSR1)  # tells where it is, in its log
    failpoints.install()
    if os.environ.get("CHAOS_MUTANT"):
        from tests.chaos import mutants

        mutants.install()
    sys.exit(main())
