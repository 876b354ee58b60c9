"""``python -m export <model|all>``: run folder in, proven version in the model repository out."""

from __future__ import annotations

import sys

from export.command import main

if __name__ == "__main__":
    sys.exit(main())
