"""``python -m training train|predict|data|list``: data in, finished runs out."""

from __future__ import annotations

import sys

from training.command import main

if __name__ == "__main__":
    sys.exit(main())
