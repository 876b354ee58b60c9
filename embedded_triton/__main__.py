"""``python -m embedded_triton install|up|status|down``."""

from __future__ import annotations

import sys

from embedded_triton.command import main

if __name__ == "__main__":
    sys.exit(main())
