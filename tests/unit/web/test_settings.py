"""Settings: from flags and PRESAGE_ variables; nothing listens unprotected by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import ConfigError
from services.job_diagnosis.settings import JobSettings
from services.web.problem import scrub, wants_chinese
from services.web.settings import WebSettings, load_settings


def test_a_flag_wins_over_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESAGE_IN_FLIGHT", "7")
    monkeypatch.setenv("PRESAGE_CORS_ORIGINS", '["https://a.example"]')
    assert WebSettings.load().in_flight == 7
    assert WebSettings.load(in_flight=9, host=None).in_flight == 9
    assert WebSettings.load().cors_origins == ("https://a.example",)


@pytest.mark.parametrize(("name", "value"), [("IN_FLIGHT", "0"), ("CORS_ORIGINS", "[broken")])
def test_what_makes_no_sense_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"PRESAGE_{name}", value)
    with pytest.raises(ConfigError, match=name.lower()):
        WebSettings.load()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({}, "no tokens file"),
        ({"no_tokens": True, "host": "0.0.0.0"}, "only this machine"),
        ({"no_tokens": True, "host": "gateway.example"}, "only this machine"),
        ({"no_tokens": True, "tokens_file": Path("x")}, "on and off"),
        ({"tokens_file": Path("x"), "tls_key_file": Path("k")}, "half"),
    ],
)
def test_nothing_is_exposed_by_accident(settings: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        WebSettings.load(**settings).check_exposure()


@pytest.mark.parametrize(
    "settings",
    [
        {"no_tokens": True},
        {"no_tokens": True, "host": "::1"},
        {"host": "0.0.0.0", "tokens_file": Path("x")},
    ],
)
def test_what_is_meant_is_allowed(settings: dict[str, object]) -> None:
    WebSettings.load(**settings).check_exposure()


@pytest.mark.parametrize(
    ("header", "chinese"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", True),
        ("en-US,zh;q=0.9", False),
        ("en;q=0.1, zh;q=0.5", True),
        ("de", False),
        ("", False),
        ("*", False),
        ("zh;q=x", False),
    ],
)
def test_whose_language(header: str, chinese: bool) -> None:
    assert wants_chinese(header) is chinese


def test_inside_is_scrubbed_and_figures_stay() -> None:
    text = "got 3/4 at https://10.0.0.1:9/x, /srv/models/a.onnx, ipv4:1.2.3.4:5; 12:30 and a/b"
    assert scrub(text) == "got 3/4 at …, …, …; 12:30 and a/b"
    assert len(scrub("x" * 5000)) == 600


def test_a_secret_may_be_a_file_under_variables_and_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "presage_jobs_database_url").write_text("sqlite:////from/file\n")
    monkeypatch.setenv("PRESAGE_SECRETS_DIR", str(tmp_path))

    def url(**given: str) -> str:
        return load_settings(JobSettings, given).database_url.get_secret_value()

    assert url() == "sqlite:////from/file"
    monkeypatch.setenv("PRESAGE_JOBS_DATABASE_URL", "sqlite:////from/variable")
    assert url() == "sqlite:////from/variable"
    assert url(database_url="sqlite:////from/flag") == "sqlite:////from/flag"
    monkeypatch.setenv("PRESAGE_SECRETS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="no folder of secrets"):
        url()
