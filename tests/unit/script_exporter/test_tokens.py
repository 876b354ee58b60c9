"""Who may read: tokens from a file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from contract.errors import ConfigError
from script_exporter.server import parse_address
from script_exporter.tokens import load_tokens


def test_tokens_are_taken_as_they_are_or_hashed(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    hashed = hashlib.sha256(b"second").hexdigest()
    file.write_text(f"# Prometheus\nfirst\n\nsha256:{hashed}\n")
    tokens = load_tokens(str(file))
    assert tokens is not None
    assert tokens.accept("Bearer first")
    assert tokens.accept("bearer second")
    for refused in (None, "", "first", "Bearer", "Bearer third", "Basic first", f"Bearer {hashed}"):
        assert not tokens.accept(refused), refused
    assert not tokens.accept("Bearer # Prometheus")
    assert tokens.accept_headers({"AUTHORIZATION": "Bearer first"})
    assert not tokens.accept_headers({"X-Authorization": "Bearer first"})


def test_a_file_without_a_token_lets_nobody_think_it_protects(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# nothing\n")
    with pytest.raises(ConfigError, match="holds no token"):
        load_tokens(str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_tokens(str(tmp_path / "none"))
    assert load_tokens("") is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":5535", ("0.0.0.0", 5535)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:5535", ("::1", 5535)),
        ("node-1:5535", ("node-1", 5535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["5535", "", "host", "host:", "host:http", "h:99999", "host:-1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_address(text)
