"""Tokens: shown once, only hashes at rest, for their APIs, read again when the file changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import ConfigError
from services.web.tokens import TokenBook, add_token, read_tokens, remove_token


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_secret_is_found_again_and_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    secret = add_token(path, "platform", ["log_anomaly"])
    token = TokenBook(path).find(secret)
    assert token is not None
    assert token.name == "platform"
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(secret) >= 43


def test_it_is_for_its_apis_only(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    add_token(path, "one", ["log_anomaly"])
    add_token(path, "every", ["all"])
    one, every = read_tokens(path)
    assert one.may_use("log_anomaly")
    assert not one.may_use("metric_forecast")
    assert every.may_use("metric_forecast")


@pytest.mark.parametrize("wrong", ["", "presage_", "x" * 300, "présage"])
def test_other_secrets_are_nobodys(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "tokens.toml"
    add_token(path, "platform", ["all"])
    assert TokenBook(path).find(wrong) is None


def test_a_change_is_noticed_within_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "tokens.toml", Clock()
    first = add_token(path, "first", ["all"])
    book = TokenBook(path, clock)
    second = add_token(path, "second", ["all"])
    remove_token(path, "first")
    assert book.find(first) is not None
    clock.now = 1.0
    assert book.find(first) is None
    assert book.find(second) is not None


def test_a_file_that_cannot_be_read_lets_nobody_in(tmp_path: Path) -> None:
    path, clock = tmp_path / "tokens.toml", Clock()
    secret = add_token(path, "platform", ["all"])
    good = path.read_text()
    book = TokenBook(path, clock)
    for broken in ("[[token]]\nname = ", "name = 1\n", "[[token]]\nname = 'x'\n"):
        path.write_text(broken)
        clock.now += 1
        assert book.find(secret) is None
        assert book.trouble
    path.unlink()
    clock.now += 1
    assert book.find(secret) is None
    path.write_text(good)
    path.chmod(0o600)
    clock.now += 1
    assert book.find(secret) is not None
    assert book.trouble is None


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    add_token(path, "platform", ["all"])
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="others may write"):
        read_tokens(path)


def test_a_name_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    add_token(path, "platform", ["all"])
    with pytest.raises(ConfigError, match="taken"):
        add_token(path, "platform", ["all"])
    with pytest.raises(ConfigError, match="name"):
        add_token(path, 'x"]\nname = "y', ["all"])
    with pytest.raises(ConfigError, match="platform"):
        remove_token(path, "nobody")
    assert [left.name for left in tmp_path.iterdir()] == ["tokens.toml"]
