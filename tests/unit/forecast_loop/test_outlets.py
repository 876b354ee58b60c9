"""Pushgateway and remote write: what is sent, and what their refusals become."""

from __future__ import annotations

import base64
import math
from typing import Any

import cramjam
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from contract.errors import ServerAnswerError, ServerUnavailableError
from services.forecast_loop.exposition import Page, render_page
from services.forecast_loop.pushgateway import Pushgateway
from services.forecast_loop.remote_write import RemoteWrite
from services.forecast_loop.snapshot import Snapshot
from services.forecast_loop.telemetry import Telemetry
from tests.unit.forecast_loop.conftest import FakeServer
from tests.unit.forecast_loop.test_exposition import NOW, parse, snapshot

PAGE = Page(b"a 1\n", math.inf)


def test_one_put_replaces_the_job(fake_server: FakeServer) -> None:
    fake_server.respond = lambda path, form: (200, b"")
    gateway = Pushgateway(fake_server.url + "/")
    gateway.push(PAGE)
    gateway.close()
    assert [path for path, _ in fake_server.asked] == ["/metrics/job/forecast_loop"]
    assert fake_server.bodies == [b"a 1\n"]


def test_values_that_a_path_cannot_hold_go_as_base64(fake_server: FakeServer) -> None:
    grouping = {"cluster": "a/b", "zone": "", "name": "gpu-1.x", "group": "推理"}
    url = Pushgateway(fake_server.url, job="j", grouping=grouping).url
    parts = url.removeprefix(fake_server.url + "/metrics/").split("/")
    pairs = dict(zip(parts[::2], parts[1::2], strict=True))
    assert pairs.pop("job") == "j"
    assert pairs.pop("name") == "gpu-1.x"
    assert pairs.pop("zone@base64") == "="
    assert base64.urlsafe_b64decode(pairs.pop("cluster@base64")) == b"a/b"
    assert base64.urlsafe_b64decode(pairs.pop("group@base64")).decode() == "推理"
    assert not pairs


def test_refusals_are_typed(fake_server: FakeServer) -> None:
    fake_server.respond = lambda path, form: (400, b"text format parsing error in line 1")
    with pytest.raises(ServerAnswerError, match="400: text format parsing error"):
        Pushgateway(fake_server.url).push(PAGE)
    remote = RemoteWrite(fake_server.url + "/api/v1/write")
    fake_server.respond = lambda path, form: (400, b"out of order sample")
    with pytest.raises(ServerAnswerError, match="out of order sample"):
        remote.write([snapshot([("a", "x")], [[1, 2]])], [], NOW)
    fake_server.respond = lambda path, form: (404, b"")
    with pytest.raises(ServerAnswerError, match="enable-remote-write-receiver"):
        remote.write([snapshot([("a", "x")], [[1, 2]])], [], NOW)
    fake_server.respond = lambda path, form: (503, b"")
    with pytest.raises(ServerUnavailableError):
        remote.write([snapshot([("a", "x")], [[1, 2]])], [], NOW)
    with FakeServer() as gone:
        pass
    with pytest.raises(ServerUnavailableError):
        Pushgateway(gone.url).push(PAGE)
    with pytest.raises(ServerUnavailableError):
        RemoteWrite(gone.url).write([snapshot([("a", "x")], [[1, 2]])], [], NOW)


def write_request() -> Any:
    """The message class by its published definition, built by protobuf itself."""
    fields = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="remote.proto", syntax="proto3")

    def message(name: str, *rows: tuple[str, int, int, str | None]) -> None:
        kind = file.message_type.add(name=name)
        for field, number, of, message_name in rows:
            repeated = message_name is not None
            kind.field.add(
                name=field,
                number=number,
                type=of,
                type_name=f".{message_name}" if message_name else None,
                label=fields.LABEL_REPEATED if repeated else fields.LABEL_OPTIONAL,
            )

    message("Label", ("name", 1, fields.TYPE_STRING, None), ("value", 2, fields.TYPE_STRING, None))
    message(
        "Sample",
        ("value", 1, fields.TYPE_DOUBLE, None),
        ("timestamp", 2, fields.TYPE_INT64, None),
    )
    message(
        "TimeSeries",
        ("labels", 1, fields.TYPE_MESSAGE, "Label"),
        ("samples", 2, fields.TYPE_MESSAGE, "Sample"),
    )
    message("WriteRequest", ("timeseries", 1, fields.TYPE_MESSAGE, "TimeSeries"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("WriteRequest"))


def written(server: FakeServer) -> list[tuple[dict[str, str], float, int]]:
    found = []
    for body in server.bodies:
        request = write_request().FromString(bytes(cramjam.snappy.decompress_raw(body)))
        for series in request.timeseries:
            names = [label.name for label in series.labels]
            assert names == sorted(names)
            [sample] = series.samples
            labels = {label.name: label.value for label in series.labels}
            found.append((labels, sample.value, sample.timestamp))
    return found


@pytest.mark.parametrize("timestamp_per", ["series", "query"])
def test_remote_write_says_what_the_page_says(
    fake_server: FakeServer, timestamp_per: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.forecast_loop.remote_write._SERIES_A_REQUEST", 7)
    fake_server.respond = lambda path, form: (204, b"")
    shown: list[Snapshot] = [
        snapshot(
            [("a", "推理"), ('b"', "\\")],
            [[0.5, -1e30], [1e-9, 300.0]],
            timestamp_per=timestamp_per,
            quantiles=True,
        )
    ]
    remote = RemoteWrite(fake_server.url)
    count = remote.write(shown, [], NOW)
    found = written(fake_server)
    assert count == len(found)
    assert len(fake_server.bodies) == -(-len(found) // 7)
    assert fake_server.headers[0]["Content-Encoding"] == "snappy"
    assert {timestamp for _, _, timestamp in found} == {int(NOW * 1000)}
    page = parse(render_page(shown, b"").body)
    by_name = {
        (labels.pop("__name__"), tuple(sorted(labels.items()))): value for labels, value, _ in found
    }
    assert by_name.keys() == page.keys()
    for name, value in by_name.items():
        assert value == pytest.approx(page[name], rel=1e-6)


def test_own_metrics_are_written_too(fake_server: FakeServer) -> None:
    fake_server.respond = lambda path, form: (204, b"")
    telemetry = Telemetry(300)
    telemetry.warn("m", "duplicate", 3)
    RemoteWrite(fake_server.url, job="j").write([], telemetry.samples(), NOW)
    found = {labels.pop("__name__"): (labels, value) for labels, value, _ in written(fake_server)}
    labels, value = found["ai_forecast_loop_warnings_total"]
    assert labels == {"job": "j", "metric": "m", "reason": "duplicate"}
    assert value == 3.0
    assert not any(name.endswith("_created") for name in found)


def test_nan_is_never_sent(fake_server: FakeServer) -> None:
    fake_server.respond = lambda path, form: (204, b"")
    RemoteWrite(fake_server.url).write([snapshot([("a", "x")], [[1, 2]], sigma=np.nan)], [], NOW)
    assert {labels["__name__"] for labels, _, _ in written(fake_server)} == {
        "ai_forecast_quota",
        "ai_forecast_timestamp_seconds",
    }
