"""The page's files: addressed by content, cached for ever, packed, and only those that exist."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from fastapi import APIRouter, FastAPI
from starlette.testclient import TestClient

from contract.errors import ServerSetupError
from contract.plotly_script import plotly_script
from services.gateway.page import PageSettings, mount_page
from services.gateway.page.asset_store import ASSETS_FOLDER, AssetStore


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    router = APIRouter(prefix="/v1")
    router.get("/models")(lambda: [])
    router.post("/logs")(lambda: {})
    mount_page(app, PageSettings())
    # The page may be mounted before the APIs.
    app.include_router(router)
    return TestClient(app)


def addresses(html: str) -> list[str]:
    return re.findall(r'(?:href|src)="(/assets/[^"]+)"', html)


def test_every_file_that_the_document_names_is_served(client: TestClient) -> None:
    named = addresses(client.get("/").text)
    assert len(named) > 20
    for address in named:
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


def test_addresses_change_with_the_content(tmp_path: Path) -> None:
    script = tmp_path / "plotly.min.js"
    script.write_text("1")
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "a.js").write_text("a")
    before = AssetStore(folder, script)
    (folder / "a.js").write_text("b")
    after = AssetStore(folder, script)
    assert before.path("a.js") != after.path("a.js")
    assert before.path("plotly.min.js") == after.path("plotly.min.js")
    script.write_text("2")
    assert AssetStore(folder, script).path("plotly.min.js") != after.path("plotly.min.js")


def test_what_was_seen_is_not_sent_again(client: TestClient) -> None:
    address = addresses(client.get("/").text)[1]
    etag = client.get(address).headers["etag"]
    for given in (etag, f'"other", W/{etag}', "*"):
        answer = client.get(address, headers={"If-None-Match": given})
        assert (answer.status_code, answer.content) == (304, b"")
    assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200


def test_packed_where_it_is_accepted(client: TestClient) -> None:
    address = next(a for a in addresses(client.get("/").text) if a.endswith("log_view.js"))
    plain = client.get(address, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == (ASSETS_FOLDER / "log_view.js").read_bytes()
    with client.stream("GET", address, headers={"Accept-Encoding": "br, gzip;q=0.5"}) as packed:
        body = b"".join(packed.iter_raw())
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(body) == plain.content
    refused = client.get(address, headers={"Accept-Encoding": "gzip;q=0"})
    assert "content-encoding" not in refused.headers


@pytest.mark.parametrize(
    "path", ["/assets/", "/assets/x/main.js", "/assets/../mount.py", "/assets/%2e%2e/mount.py"]
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "immutable" not in answer.headers.get("cache-control", "")


def test_the_policy_allows_this_origin_only(client: TestClient) -> None:
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe|https?:|\*", policy)


def test_the_document_offers_what_the_app_answers(client: TestClient) -> None:
    tabs = re.findall(r'id="tab-(\w+)"', client.get("/").text)
    assert tabs == ["logs", "models"]


def test_a_remembered_theme_is_one_of_two(client: TestClient) -> None:
    for cookie, shown in (("dark", "dark"), ('"><script>', "auto"), ("", "auto")):
        html = client.get("/", headers={"Cookie": f"presage_theme={cookie}"}).text
        assert f'data-theme="{shown}"' in html
        assert "<script>" not in html


def test_plotly_comes_out_of_its_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plotly_script().stat().st_size > 1_000_000
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServerSetupError, match="make setup"):
        plotly_script()
