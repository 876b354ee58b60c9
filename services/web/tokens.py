"""Bearer tokens: named, for some APIs, only their hashes at rest, read again when they change.

A token is 32 random bytes, so a plain SHA-256 keeps it: there is no dictionary to try, and 2**256
guesses are as far away behind a fast hash as behind a slow one. A slow hash would only give every
request, and every attacker's request, a tenth of a second of our CPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import math
import os
import re
import secrets
import stat
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.errors import ConfigError

ALL_APIS = "all"
PREFIX = "presage_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOOK_EVERY_SECONDS = 1.0
_LONGEST_TOKEN = 256


@dataclass(frozen=True)
class Token:
    """Who asks. ``rate_per_second``: None takes the service's, 0 is unlimited."""

    name: str
    apis: frozenset[str]
    sha256: str
    rate_per_second: float | None = None

    def may_use(self, api: str) -> bool:
        return ALL_APIS in self.apis or api in self.apis


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def read_tokens(path: Path) -> list[Token]:
    """Raises ConfigError: unreadable, open for others to write, or a row that makes no sense."""
    try:
        mode = path.stat().st_mode
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            "the tokens file cannot be read",
            where=str(path),
            got=error.strerror or str(error),
            next_command="make a token: python -m services tokens add NAME --api all",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("the tokens file is no TOML", where=str(path), got=str(error)) from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            "others may write the tokens file",
            where=str(path),
            expected="mode 600",
            got=oct(mode & 0o777),
            next_command=f"chmod 600 {path}",
        )
    rows = document.get("token", [])
    if set(document) - {"token"} or not isinstance(rows, list):
        raise ConfigError("not a tokens file", where=str(path), expected="[[token]] tables only")
    tokens = [_token(row, f"{path}: token {number}") for number, row in enumerate(rows, 1)]
    names = [token.name for token in tokens]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError("a name is there twice", where=str(path), got=", ".join(twice))
    return tokens


def _token(row: Any, where: str) -> Token:
    if not isinstance(row, dict) or set(row) - {"name", "apis", "sha256", "rate_per_second"}:
        raise ConfigError(
            "not a token", where=where, expected="name, apis, sha256 and perhaps rate_per_second"
        )
    name, apis, sha256 = row.get("name"), row.get("apis"), row.get("sha256")
    rate = row.get("rate_per_second")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError("a token's name makes no sense", where=where, got=repr(name))
    if not isinstance(apis, list) or not apis or not all(isinstance(a, str) for a in apis):
        raise ConfigError("a token's apis make no sense", where=where, got=repr(apis))
    if not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256):
        raise ConfigError("a token's sha256 is none", where=where, expected="64 hex digits")
    if rate is not None and not (
        isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 <= rate < math.inf
    ):
        raise ConfigError("a token's rate_per_second makes no sense", where=where, got=repr(rate))
    return Token(name, frozenset(apis), sha256, None if rate is None else float(rate))


def write_tokens(path: Path, tokens: Sequence[Token]) -> None:
    """Replaced at once, mode 600: a service never reads half a file. Raises ConfigError."""
    blocks = []
    for token in tokens:
        lines = [
            "[[token]]",
            f'name = "{token.name}"',
            f"apis = [{', '.join(f'{chr(34)}{api}{chr(34)}' for api in sorted(token.apis))}]",
            f'sha256 = "{token.sha256}"',
        ]
        if token.rate_per_second is not None:
            lines.append(f"rate_per_second = {token.rate_per_second}")
        blocks.append("\n".join(lines) + "\n")
    temporary = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join(blocks))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(
            "the tokens file cannot be written", where=str(path), got=error.strerror or str(error)
        ) from error


def add_token(
    path: Path, name: str, apis: Sequence[str], rate_per_second: float | None = None
) -> str:
    """The new secret, which is nowhere else. Raises ConfigError: the name is taken, or bad."""
    tokens = read_tokens(path) if path.exists() else []
    if any(token.name == name for token in tokens):
        raise ConfigError(
            "the name is taken",
            where=str(path),
            got=name,
            next_command=f"remove it first: python -m services tokens remove {name}",
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    row: dict[str, Any] = {"name": name, "apis": list(apis), "sha256": digest(secret)}
    if rate_per_second is not None:
        row["rate_per_second"] = rate_per_second
    write_tokens(path, [*tokens, _token(row, name)])
    return secret


def remove_token(path: Path, name: str) -> None:
    """Raises ConfigError: no such name."""
    tokens = read_tokens(path)
    kept = [token for token in tokens if token.name != name]
    if len(kept) == len(tokens):
        known = ", ".join(token.name for token in tokens) or "none"
        raise ConfigError("no such token", where=str(path), expected=f"one of {known}", got=name)
    write_tokens(path, kept)


class TokenBook:
    """The tokens of a file, read again within a second of a change.

    A file that cannot be read lets nobody in (``trouble`` says why): a revocation with a slip of
    the pen must not leave the old tokens working.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked_at = -math.inf
        self._seen: tuple[int, ...] | None = None
        self._tokens: list[Token] = []
        self._digests: list[bytes] = []
        self.trouble: str | None = None
        self._look()

    def find(self, secret: str) -> Token | None:
        """Whose it is. Every stored hash is compared, in constant time, whatever matches."""
        if self._clock() - self._looked_at >= _LOOK_EVERY_SECONDS:
            self._look()
        if len(secret) > _LONGEST_TOKEN:
            return None
        asked = digest(secret).encode()
        found: Token | None = None
        for token, stored in zip(self._tokens, self._digests, strict=True):
            if hmac.compare_digest(asked, stored):
                found = token
        return found

    def _look(self) -> None:
        self._looked_at = self._clock()
        seen: tuple[int, ...] | None = None
        with contextlib.suppress(OSError):
            found = self._path.stat()
            seen = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
        if seen is not None and seen == self._seen:
            return
        self._seen = seen
        logger = logging.getLogger("presage.tokens")
        try:
            tokens = read_tokens(self._path)
        except ConfigError as error:
            if self.trouble != str(error):
                logger.error("nobody gets in: %s", error)
            self.trouble = str(error)
            tokens = []
        else:
            self.trouble = None
            logger.info("%d tokens", len(tokens))
        self._tokens = tokens
        self._digests = [token.sha256.encode() for token in tokens]
