"""Read by every Python that `benchmarks.reliability.faults.in_children` starts: puts the faults under it."""

import os
import sys
from pathlib import Path

# The decoder child opens no files, and is shut in before it could.
if os.environ.get("PATINA_TEST_FAULT") and "trainer.data.decoder_child" not in sys.orig_argv:
    from benchmarks.reliability.faults import Faults, Plan, install

    install(Faults(Plan(), Path(os.environ["PATINA_TEST_FAULT"])))
