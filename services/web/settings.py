"""``WebSettings``: what every web service can be told, by flag or ``PRESAGE_*`` variable."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from contract.errors import ConfigError

S = TypeVar("S", bound=BaseSettings)
SECRETS_VARIABLE = "PRESAGE_SECRETS_DIR"


class WebSettings(BaseSettings):
    """Frozen; each field is also the variable PRESAGE_<FIELD>.

    largest_body_bytes: of a request held in memory, unpacked. largest_stream_bytes: of an NDJSON
    request, which is read line by line. body_bytes_per_second: a body slower than this, after
    ``body_grace_seconds``, is refused. in_flight: requests answered at a time; more are told to
    come again. rate_per_second, burst: of a token that the tokens file gives no rate of its own;
    0 is unlimited.
    """

    model_config = SettingsConfigDict(env_prefix="PRESAGE_", frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    tokens_file: Path | None = None
    no_tokens: bool = False
    tls_certificate_file: Path | None = None
    tls_key_file: Path | None = None
    cors_origins: tuple[str, ...] = ()

    largest_body_bytes: int = Field(default=64 << 20, ge=1024)
    largest_stream_bytes: int = Field(default=1 << 30, ge=1024)
    largest_held_bytes: int = Field(default=256 << 20, ge=1024)
    largest_header_bytes: int = Field(default=16 << 10, ge=1024)
    largest_header_count: int = Field(default=64, ge=8)
    header_seconds: float = Field(default=10.0, gt=0)
    body_grace_seconds: float = Field(default=10.0, gt=0)
    body_bytes_per_second: int = Field(default=16 << 10, ge=1)
    stream_idle_seconds: float = Field(default=60.0, gt=0)
    keep_alive_seconds: int = Field(default=75, ge=1)
    connections: int = Field(default=1024, ge=1)

    in_flight: int = Field(default=256, ge=1)
    rate_per_second: float = Field(default=100.0, ge=0)
    burst: int = Field(default=200, ge=1)
    deadline_seconds: float = Field(default=60.0, gt=0)
    drain_seconds: float = Field(default=20.0, gt=0)

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def load(cls, **given: Any) -> Self:
        """What is given (None: not given) wins over the environment. Raises ConfigError."""
        return load_settings(cls, given)

    def check_exposure(self) -> None:
        """Raises ConfigError: it would listen to people whom nobody asks for a token."""
        if self.no_tokens and self.tokens_file is not None:
            raise ConfigError(
                "tokens are on and off at once",
                where="PRESAGE_TOKENS_FILE",
                expected="a tokens file or --no-tokens, not both",
            )
        if self.no_tokens and not self.is_loopback:
            raise ConfigError(
                "without tokens only this machine may ask",
                where="--no-tokens",
                expected="a loopback address such as 127.0.0.1",
                got=self.host,
                next_command="make a token: python -m services tokens add NAME --api all",
            )
        if not self.no_tokens and self.tokens_file is None:
            raise ConfigError(
                "nobody could get in: no tokens file",
                where="--tokens-file",
                expected="a file of tokens, or --no-tokens on a loopback address",
                next_command="make a token: python -m services tokens add NAME --api all",
            )
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ConfigError(
                "half of a TLS identity",
                where="--tls-certificate-file, --tls-key-file",
                expected="both or neither",
            )


def load_settings(cls: type[S], given: dict[str, Any]) -> S:
    """Given values, over variables, over files of ``PRESAGE_SECRETS_DIR`` that are named like the
    variables in lower case (``presage_jobs_database_url``): a password need not be in the
    environment.

    Raises ConfigError: which setting, and why.
    """
    secrets = os.environ.get(SECRETS_VARIABLE)
    if secrets and not Path(secrets).is_dir():
        raise ConfigError(
            "no folder of secrets", where=SECRETS_VARIABLE, expected="a folder", got=secrets
        )
    try:
        return cls(
            _secrets_dir=secrets or None,
            **{name: value for name, value in given.items() if value is not None},
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        raise ConfigError(
            f"setting {name} makes no sense",
            where=f"{cls.model_config.get('env_prefix', '')}{name.upper()}",
            got=first["msg"].removeprefix("Value error, "),
        ) from error
    except ValueError as error:
        raise ConfigError("a PRESAGE_ variable cannot be read", got=str(error)) from error
