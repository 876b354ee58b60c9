"""Bearer tokens from a file: one a line, as it is or as ``sha256:<hex>`` of it; ``#`` comments."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from pathlib import Path

from contract.errors import ConfigError

_HASHED = re.compile(r"sha256:([0-9a-f]{64})")


class Tokens:
    """Only hashes are kept. An empty set of tokens lets nobody in."""

    def __init__(self, digests: list[bytes]) -> None:
        self._digests = digests

    def accept_headers(self, headers: Mapping[str, str]) -> bool:
        """``accept`` of the header among these, whatever the case of its name."""
        given = (text for name, text in headers.items() if name.lower() == "authorization")
        return self.accept(next(given, None))

    def accept(self, authorization: str | None) -> bool:
        """Whether an Authorization header carries one of them; takes the same time for each."""
        scheme, _, token = (authorization or "").partition(" ")
        digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return found and scheme.lower() == "bearer"


def load_tokens(file: str) -> Tokens | None:
    """None where no file is named. Raises ConfigError."""
    if not file:
        return None
    try:
        text = Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("token file cannot be read", where=file, got=str(error)) from error
    digests = []
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        hashed = _HASHED.fullmatch(line)
        digests.append(
            bytes.fromhex(hashed[1]) if hashed else hashlib.sha256(line.encode()).digest()
        )
    if not digests:
        raise ConfigError("token file holds no token", where=file, expected="one a line")
    return Tokens(digests)
