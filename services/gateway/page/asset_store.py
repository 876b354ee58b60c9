"""``AssetStore``: the page's files in memory, under addresses that name their content.

Our own files lie below one hash of them all, so that scripts import each other by relative names;
plotly.js comes out of the installed wheel and has its own.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

from contract.plotly_script import PLOTLY_NAME, plotly_script

ASSETS_FOLDER = Path(__file__).with_name("assets")
_MEDIA_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_HASH_LETTERS = 16
_STYLE_ID = re.compile(rb'getElementById\("([0-9a-f]{32,})"\)')
# Below this the header costs more than it saves.
_SMALLEST_COMPRESSED_BYTES = 512


@dataclass
class Asset:
    """One file. ``address`` is its path below ``/assets/``: ``<hash>/<name>``."""

    address: str
    media_type: str
    body: bytes
    etag: str
    _compressed: bytes | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def compressed(self) -> bytes | None:
        """The body as gzip, made at the first call (plotly takes 0.3 s); None: not worth it."""
        if len(self.body) < _SMALLEST_COMPRESSED_BYTES:
            return None
        with self._lock:
            if self._compressed is None:
                self._compressed = gzip.compress(self.body, 6, mtime=0)
        return self._compressed


class AssetStore:
    """Every asset by address.

    Raises ServerSetupError: plotly is not installed.
    """

    def __init__(self, folder: Path = ASSETS_FOLDER, plotly: Path | None = None) -> None:
        bodies = {
            path.name: path.read_bytes()
            for path in sorted(folder.iterdir())
            if path.suffix in _MEDIA_TYPES
        }
        together = hashlib.sha256()
        for name, body in bodies.items():
            together.update(f"{name}\0{len(body)}\0".encode())
            together.update(body)
        self._own_hash = together.hexdigest()[:_HASH_LETTERS]
        script = (plotly or plotly_script()).read_bytes()
        # Style sheets that libraries inside plotly.js write into the document when it is loaded,
        # unless an element of their id is there: for maps, which the page has none of.
        self.foreign_style_ids = [found.decode() for found in _STYLE_ID.findall(script)]
        assets = [_asset(self._own_hash, name, body) for name, body in bodies.items()]
        assets.append(_asset(_digest(script), PLOTLY_NAME, script))
        self._assets = {asset.address: asset for asset in assets}
        self._plotly_address = assets[-1].address

    def get(self, address: str) -> Asset | None:
        return self._assets.get(address)

    def path(self, name: str) -> str:
        """The path to ask for: ``/assets/<hash>/<name>``. Raises KeyError: no such file."""
        if name == PLOTLY_NAME:
            return f"/assets/{self._plotly_address}"
        return f"/assets/{self._assets[f'{self._own_hash}/{name}'].address}"

    def scripts(self) -> list[str]:
        """Paths of our own modules, for the browser to fetch at once and not one after another."""
        return [
            f"/assets/{address}"
            for address in self._assets
            if address.endswith(".js") and address != self._plotly_address
        ]


def _asset(digest: str, name: str, body: bytes) -> Asset:
    return Asset(
        address=f"{digest}/{name}",
        media_type=_MEDIA_TYPES[Path(name).suffix],
        body=body,
        etag=f'"{_digest(body)}"',
    )


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:_HASH_LETTERS]
