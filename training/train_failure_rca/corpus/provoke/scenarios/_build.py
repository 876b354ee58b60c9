"""Shell that writes a C file and compiles it, for what fails when it is loaded."""

from __future__ import annotations

BUILD = """
set -e
mkdir -p build ops
cat > ops/kernel.c <<'C'
{code}
C
{compile}
"""
