"""``RemoteWrite``: forecasts as samples of Prometheus' remote write protocol 1.0, stamped now.

The message is small enough to be written by hand:

    WriteRequest { repeated TimeSeries timeseries = 1; }
    TimeSeries   { repeated Label labels = 1; repeated Sample samples = 2; }
    Label        { string name = 1; string value = 2; }
    Sample       { double value = 1; int64 timestamp = 2; }

Source: https://prometheus.io/docs/specs/prw/remote_write_spec/
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

import cramjam
import httpx

from clients.results import Array
from contract.errors import ServerAnswerError, ServerUnavailableError
from contract.metric_names import (
    HORIZON_LABEL,
    METRIC_LABEL,
    QUANTILE_LABEL,
    RESIDUAL_HORIZON,
    RESIDUAL_SIGMA,
    TIMESTAMP,
    forecast_name,
    quantile_name,
)
from services.bounded_http import bounded_client
from services.forecast_loop.snapshot import Snapshot

_SERIES_A_REQUEST = 5_000
_TIMEOUT_SECONDS = 30.0
_HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_NAME_LABEL = "__name__"


class RemoteWrite:
    """Never the future: one sample stamped ahead of time makes Prometheus 2.42 refuse the series'
    next scrapes. Sent in requests of bounded size.
    """

    name = "remote_write"

    def __init__(
        self,
        url: str,
        job: str = "forecast_loop",
        *,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        self.url = url
        self._job = job
        self._http = bounded_client(timeout_seconds)

    def close(self) -> None:
        self._http.close()

    def write(
        self,
        snapshots: Sequence[Snapshot],
        own_metrics: Iterable[tuple[str, Mapping[str, str], float]],
        now_seconds: float,
    ) -> int:
        """Send everything; returns how many samples.

        Raises ServerUnavailableError (away, 5xx), ServerAnswerError (refused, in its own words).
        """
        moment = int(now_seconds * 1000)
        sent = 0
        batch: list[bytes] = []
        for labels, value in self._samples(snapshots, own_metrics):
            batch.append(encode_series(labels, value, moment))
            if len(batch) == _SERIES_A_REQUEST:
                self._send(batch)
                sent += len(batch)
                batch = []
        if batch:
            self._send(batch)
        return sent + len(batch)

    def _samples(
        self,
        snapshots: Sequence[Snapshot],
        own_metrics: Iterable[tuple[str, Mapping[str, str], float]],
    ) -> Iterator[tuple[dict[str, str], float]]:
        for snapshot in snapshots:
            yield from snapshot_samples(snapshot)
        for name, labels, value in own_metrics:
            # What a scrape would have added: without it, two loops would write one series.
            yield {_NAME_LABEL: name, "job": self._job, **labels}, value

    def _send(self, batch: list[bytes]) -> None:
        body = bytes(cramjam.snappy.compress_raw(b"".join(batch)))
        try:
            answer = self._http.post(self.url, content=body, headers=_HEADERS)
        except httpx.HTTPError as error:
            raise ServerUnavailableError(
                "remote write: nobody answers", where=self.url, got=str(error) or repr(error)
            ) from error
        if answer.is_success:
            return
        got = f"{answer.status_code}: {answer.text[:200].strip()}"
        if answer.status_code >= 500:
            raise ServerUnavailableError(
                "remote write cannot be taken now", where=self.url, got=got
            )
        raise ServerAnswerError(
            "remote write is refused",
            where=self.url,
            expected="2xx",
            got=got,
            next_command="is Prometheus started with --web.enable-remote-write-receiver?"
            if answer.status_code == 404
            else None,
        )


def snapshot_samples(snapshot: Snapshot) -> Iterator[tuple[dict[str, str], float]]:
    """(labels, value) of everything that the snapshot's text on /metrics says."""
    for column, horizon in enumerate(snapshot.horizons):
        extra = {_NAME_LABEL: forecast_name(snapshot.metric), HORIZON_LABEL: horizon}
        yield from _series(snapshot, extra, snapshot.median[:, column])
        if snapshot.quantiles is not None:
            for index, level in enumerate(snapshot.quantile_levels):
                extra = {
                    _NAME_LABEL: quantile_name(snapshot.metric),
                    HORIZON_LABEL: horizon,
                    QUANTILE_LABEL: f"{level:g}",
                }
                yield from _series(snapshot, extra, snapshot.quantiles[:, column, index])
        extra = {_NAME_LABEL: TIMESTAMP, METRIC_LABEL: snapshot.metric, HORIZON_LABEL: horizon}
        if snapshot.timestamp_per == "series":
            yield from _series(snapshot, extra, snapshot.made_seconds)
        elif snapshot.keys:
            yield extra, float(snapshot.made_seconds.min())
    extra = {
        _NAME_LABEL: RESIDUAL_SIGMA,
        METRIC_LABEL: snapshot.metric,
        HORIZON_LABEL: RESIDUAL_HORIZON,
    }
    yield from _series(snapshot, extra, snapshot.sigma)


def _series(
    snapshot: Snapshot, extra: dict[str, str], values: Array
) -> Iterator[tuple[dict[str, str], float]]:
    for key, value in zip(snapshot.keys, values.tolist(), strict=True):
        if not math.isnan(value):
            yield dict(zip(snapshot.labels, key, strict=True)) | extra, value


def encode_series(labels: Mapping[str, str], value: float, moment_milliseconds: int) -> bytes:
    """One entry of WriteRequest.timeseries; labels are sorted, as the protocol demands."""
    body = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, text.encode()))
        for name, text in sorted(labels.items())
        if text
    )
    # 0x09: field 1, eight bytes; 0x10: field 2, varint.
    sample = b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(moment_milliseconds)
    return _field(1, body + _field(2, sample))


def _field(number: int, content: bytes) -> bytes:
    """A field of a length and its bytes."""
    return bytes((number << 3 | 2,)) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
