"""``python -m clients forecast|logs|diagnose|health``."""

from __future__ import annotations

import sys

from clients.command import main

if __name__ == "__main__":
    sys.exit(main())
