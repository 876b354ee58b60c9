"""A CMDB behind an HTTP API: pages, tokens, and every way in which it fails."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from script_exporter.discovery.cmdb import Cmdb
from script_exporter.discovery.settings import CmdbSettings
from tests.fixtures.endpoints import free_port

Answer = tuple[int, bytes]


class Api:
    """``respond(path, query)``; requests without the token are 401. Keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.respond: Callable[[str, dict[str, str]], Answer] = lambda path, query: (404, b"")
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.asked.append(self.path)
                split = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(split.query).items()}
                status, body = 401, b""
                if self.headers.get("Authorization") == "Bearer let-me":
                    status, body = api.respond(split.path, query)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:1/")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def api() -> Iterator[Api]:
    found = Api()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join(5)


def cmdb(api: Api, folder: Path, **more: Any) -> Cmdb:
    token = folder / "token"
    token.write_text("let-me\n")
    given = {
        "url": f"{api.url}/hosts",
        "token_file": token,
        "hosts": "data.items",
        "parameters": {"page_size": 2},
        "timeout": 5,
    }
    return Cmdb(CmdbSettings.model_validate(given | more), folder / "state.json")


def page(names: list[str], **more: object) -> Answer:
    items = [{"name": name, "address": "10.0.0.1", "cards": "A100"} for name in names]
    return 200, json.dumps({"data": {"items": items, **more}}).encode()


def test_pages_by_number(api: Api, tmp_path: Path) -> None:
    pages = {"": (["a", "b"], 2), "2": (["c", "d"], 3), "3": (["e"], None)}

    def respond(path: str, query: dict[str, str]) -> Answer:
        assert query["page_size"] == "2"
        names, following = pages[query.get("page", "")]
        return page(names, next=following)

    api.respond = respond
    found = cmdb(api, tmp_path, next="data.next")
    assert found.refresh(), found.problem
    assert [host.name for host in found.hosts or ()] == ["a", "b", "c", "d", "e"]
    assert len(api.asked) == 3


def test_pages_by_url(api: Api, tmp_path: Path) -> None:
    def respond(path: str, query: dict[str, str]) -> Answer:
        if path == "/hosts":
            return page(["a"], next="/more?cursor=x%3D")
        return page(["b"], next="") if query == {"cursor": "x="} else (400, b"")

    api.respond = respond
    found = cmdb(api, tmp_path, next="data.next")
    assert found.refresh(), found.problem
    assert [host.name for host in found.hosts or ()] == ["a", "b"]


def test_the_token_goes_to_no_other_machine(api: Api, tmp_path: Path) -> None:
    other = f"http://127.0.0.1:{free_port()}/more"
    api.respond = lambda path, query: page(["a"], next=other)
    found = cmdb(api, tmp_path, next="data.next")
    assert not found.refresh()
    assert "another host" in found.problem
    api.respond = lambda path, query: (302, b"")
    assert not found.refresh()
    assert "HTTP 302" in found.problem


def test_pages_without_an_end_come_to_one(api: Api, tmp_path: Path) -> None:
    api.respond = lambda path, query: page(["a"], next="again")
    found = cmdb(api, tmp_path, next="data.next")
    assert found.refresh()
    assert len(api.asked) == 2


def test_every_failure_leaves_the_last_good_answer(api: Api, tmp_path: Path) -> None:
    api.respond = lambda path, query: page(["a", "b"])
    found = cmdb(api, tmp_path)
    assert found.refresh()
    failures: dict[str, Answer] = {
        "unreachable": (503, b"busy"),
        "answer": (200, b"<html>login</html>"),
    }
    for reason, answer in failures.items():
        api.respond = lambda path, query, answer=answer: answer  # type: ignore[misc]
        assert not found.refresh()
        assert found.requests[reason] == 1
    (tmp_path / "token").write_text("wrong")
    assert not found.refresh()
    assert "HTTP 401" in found.problem
    (tmp_path / "token").unlink()
    assert not found.refresh()
    assert "token cannot be read" in found.problem
    (tmp_path / "token").write_text("let-me")
    api.server.shutdown()
    api.server.server_close()
    assert not found.refresh()
    assert "cannot be reached" in found.problem
    assert [host.name for host in found.hosts or ()] == ["a", "b"]
    assert found.requests["ok"] == 1


def test_a_cmdb_that_never_answers_is_given_up(api: Api, tmp_path: Path) -> None:
    release = threading.Event()

    def respond(path: str, query: dict[str, str]) -> Answer:
        release.wait(60)
        return 200, b"[]"

    api.respond = respond
    found = cmdb(api, tmp_path, timeout=0.3)
    began = time.monotonic()
    assert not found.refresh()
    assert time.monotonic() - began < 30
    assert found.requests["unreachable"] == 1
    release.set()
