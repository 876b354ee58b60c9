"""``python -m training train|predict|data|list``: data in, finished runs out."""

from __future__ import annotations

import os
import sys

# Before torch loads OpenMP: threads that spin while they wait fight whatever else runs here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from training.command import main

if __name__ == "__main__":
    sys.exit(main())
