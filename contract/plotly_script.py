"""Where plotly.js lies: charts of pages that need no network."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from contract.errors import ServerSetupError

PLOTLY_NAME = "plotly.min.js"


def plotly_script() -> Path:
    """plotly.js inside the installed wheel. Raises ServerSetupError."""
    # Found without an import: that would cost half a second and hundreds of modules.
    spec = importlib.util.find_spec("plotly")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "package_data" / PLOTLY_NAME
        if path.is_file():
            return path
    raise ServerSetupError(
        "the page's chart has no plotly.js",
        expected=f"the plotly package with package_data/{PLOTLY_NAME}",
        got="not installed" if spec is None else "a package without it",
        next_command="install it: make setup",
    )
