"""``python -m script_exporter -config.file FILE`` and ``python -m script_exporter discover``."""

from __future__ import annotations

import sys

from script_exporter.command import main

if __name__ == "__main__":
    sys.exit(main())
